package openai

import (
	"net/http"

	"hanmo/hanmov1"
)

type modelList struct {
	Object string  `json:"object"`
	Data   []model `json:"data"`
}

type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"` // when the gateway started
	OwnedBy string `json:"owned_by"`
}

func (a *API) model(name string) model {
	return model{ID: name, Object: "model", Created: a.started.Unix(), OwnedBy: "hanmo"}
}

// Lists what requests may ask for: not what failed, nor what is in the repository only.
func (a *API) listModels(w http.ResponseWriter, r *http.Request) error {
	reply, err := a.models.ListModels(r.Context(), &hanmov1.ListModelsRequest{})
	if err != nil {
		return fromStatus(err, nil)
	}
	list := modelList{Object: "list", Data: []model{}}
	for _, one := range reply.Models {
		switch one.State {
		case hanmov1.ModelState_MODEL_STATE_FAILED, hanmov1.ModelState_MODEL_STATE_UNLOADED:
		default:
			list.Data = append(list.Data, a.model(one.Name))
		}
	}
	return writeJSON(w, list)
}

func (a *API) describeModel(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("model")
	reply, err := a.models.DescribeModel(r.Context(), &hanmov1.DescribeModelRequest{Name: name})
	if err != nil {
		return fromStatus(err, fieldNames{"name": "model"})
	}
	return writeJSON(w, a.model(reply.Name))
}
