package openai

import (
	"encoding/json"
	"net/http"

	"hanmo/hanmov1"
)

type completionRequest struct {
	sampling
	Prompt   *prompt `json:"prompt"`
	Logprobs *uint32 `json:"logprobs"`
	BestOf   *uint32 `json:"best_of"`

	Echo   anything `json:"echo"`
	Suffix anything `json:"suffix"`
}

// prompt is a text or token ids, or a list of one of these.
type prompt struct {
	text string
	ids  []uint32
}

func (p *prompt) UnmarshalJSON(data []byte) error {
	var texts []string
	var ids []uint32
	var lists [][]uint32
	switch {
	case json.Unmarshal(data, &p.text) == nil:
	case json.Unmarshal(data, &ids) == nil && len(ids) > 0:
		p.ids = ids
	case json.Unmarshal(data, &texts) == nil && len(texts) == 1:
		p.text = texts[0]
	case json.Unmarshal(data, &lists) == nil && len(lists) == 1 && len(lists[0]) > 0:
		p.ids = lists[0]
	case len(texts) > 1 || len(lists) > 1:
		return badField("prompt", "must be one; send a request for each")
	default:
		return badField("prompt", "must be a text or a list of token ids")
	}
	return nil
}

var completionNames = fieldNames{
	"text.include_stop": "include_stop_str_in_output",
	"token_ids":         "prompt",
	"token_ids.ids":     "prompt",
}

func (a *API) completions(w http.ResponseWriter, r *http.Request) error {
	var body completionRequest
	if err := decode(r, &body); err != nil {
		return err
	}
	request, err := body.toHanmo()
	if err != nil {
		return err
	}
	call := &textCall{api: a, request: request, names: body.names(completionNames),
		choices:  &completionChoices{logprobs: body.Logprobs != nil, offsets: map[uint32]int{}},
		idPrefix: "cmpl-", object: "text_completion", chunk: "text_completion",
		stream: body.Stream, usage: body.includesUsage()}
	return call.serve(w, r)
}

func (b *completionRequest) toHanmo() (*hanmov1.GenerateRequest, error) {
	if err := refuseSet(map[string]anything{"echo": b.Echo, "suffix": b.Suffix}); err != nil {
		return nil, err
	}
	n := uint32(1)
	if b.N != nil {
		n = *b.N
	}
	if b.BestOf != nil && *b.BestOf != n {
		return nil, badField("best_of", "must be n, "+itoa(n))
	}
	request, err := b.request()
	if err != nil {
		return nil, err
	}
	text, err := b.parameters()
	if err != nil {
		return nil, err
	}
	if text.MaxTokens == nil {
		// What clients of OpenAI's completions count on.
		text.MaxTokens = new(uint32(16))
	}
	text.Logprobs = b.Logprobs
	switch {
	case b.Prompt == nil:
		return nil, NewError(http.StatusBadRequest, "missing_required_parameter", "prompt",
			"prompt: is required")
	case b.Prompt.ids != nil:
		request.Input = &hanmov1.GenerateRequest_TokenIds{
			TokenIds: &hanmov1.TokenIds{Ids: b.Prompt.ids}}
	default:
		request.Input = &hanmov1.GenerateRequest_Prompt{Prompt: b.Prompt.text}
	}
	request.Parameters = &hanmov1.GenerateRequest_Text{Text: text}
	return request, nil
}

// completionChoices remembers how far each text has come, in characters.
type completionChoices struct {
	logprobs bool
	offsets  map[uint32]int
}

type completionChoice struct {
	Index        uint32              `json:"index"`
	Text         string              `json:"text"`
	Logprobs     *completionLogprobs `json:"logprobs"`
	FinishReason *string             `json:"finish_reason"`
	Seed         uint64              `json:"seed,omitempty"`
}

type completionLogprobs struct {
	Tokens        []string             `json:"tokens"`
	TokenLogprobs []float64            `json:"token_logprobs"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"`
	TextOffset    []int                `json:"text_offset"`
}

func (c *completionChoices) log(index uint32, log []tokenLogprob) *completionLogprobs {
	if !c.logprobs {
		return nil
	}
	lists := &completionLogprobs{Tokens: []string{}, TokenLogprobs: []float64{},
		TopLogprobs: []map[string]float64{}, TextOffset: []int{}}
	for _, token := range log {
		top := map[string]float64{}
		for _, candidate := range token.TopLogprobs {
			top[candidate.Token] = candidate.Logprob
		}
		lists.Tokens = append(lists.Tokens, token.Token)
		lists.TokenLogprobs = append(lists.TokenLogprobs, token.Logprob)
		lists.TopLogprobs = append(lists.TopLogprobs, top)
		lists.TextOffset = append(lists.TextOffset, c.offsets[index])
		for _, b := range token.Bytes {
			if b&0xC0 != 0x80 { // a character begins
				c.offsets[index]++
			}
		}
	}
	return lists
}

func (c *completionChoices) whole(text *hanmov1.Text, index uint32, log []tokenLogprob) any {
	reason := finishReason(text.FinishReason)
	return &completionChoice{Index: index, Text: text.Text, Logprobs: c.log(index, log),
		FinishReason: &reason, Seed: text.Seed}
}

func (c *completionChoices) delta(delta *hanmov1.TextDelta, _ bool, log []tokenLogprob) any {
	return &completionChoice{Index: delta.Index, Text: delta.Text, Logprobs: c.log(delta.Index, log)}
}

func (c *completionChoices) end(text *hanmov1.Text, index uint32, _ bool) any {
	reason := finishReason(text.FinishReason)
	return &completionChoice{Index: index, FinishReason: &reason, Seed: text.Seed}
}
