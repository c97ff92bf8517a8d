package openai

import (
	"encoding/json"
	"strings"

	"hanmo/hanmov1"
)

// guides are the ways to say what a text must match: OpenAI's response_format, and vLLM's in its
// older and its newer form. One of them at most.
type guides struct {
	ResponseFormat *struct {
		Type       string `json:"type"`
		JSONSchema *struct {
			Schema anything `json:"schema"`

			// These change nothing of what is made: a schema is always kept.
			Name        anything `json:"name"`
			Description anything `json:"description"`
			Strict      anything `json:"strict"`
		} `json:"json_schema"`
	} `json:"response_format"`

	GuidedJSON        anything `json:"guided_json"`
	GuidedRegex       *string  `json:"guided_regex"`
	GuidedChoice      []string `json:"guided_choice"`
	GuidedGrammar     *string  `json:"guided_grammar"`
	StructuredOutputs *struct {
		JSON       anything `json:"json"`
		JSONObject bool     `json:"json_object"`
		Regex      *string  `json:"regex"`
		Choice     []string `json:"choice"`
		Grammar    *string  `json:"grammar"`
	} `json:"structured_outputs"`
}

// given is a guide under the name of the field that it came in.
type given struct {
	field string
	guide *hanmov1.Guide
}

func (g *guides) all() ([]given, error) {
	var found []given
	add := func(field string, guide *hanmov1.Guide) {
		found = append(found, given{field, guide})
	}
	if format := g.ResponseFormat; format != nil {
		switch {
		case format.Type == "text" && format.JSONSchema == nil:
		case format.Type == "json_object" && format.JSONSchema == nil:
			add("response_format", jsonObject())
		case format.Type == "json_schema" && format.JSONSchema != nil && isSchema(format.JSONSchema.Schema):
			add("response_format", jsonGuide(format.JSONSchema.Schema))
		default:
			return nil, badField("response_format", `must be of type "text", "json_object", or "json_schema" with a json_schema.schema`)
		}
	}
	if isSchema(g.GuidedJSON) {
		add("guided_json", jsonGuide(g.GuidedJSON))
	}
	addWords(add, "guided_", g.GuidedRegex, g.GuidedChoice, g.GuidedGrammar)
	if s := g.StructuredOutputs; s != nil {
		if isSchema(s.JSON) {
			add("structured_outputs.json", jsonGuide(s.JSON))
		}
		if s.JSONObject {
			add("structured_outputs.json_object", jsonObject())
		}
		addWords(add, "structured_outputs.", s.Regex, s.Choice, s.Grammar)
	}
	return found, nil
}

func addWords(add func(string, *hanmov1.Guide), prefix string, regex *string, choice []string, grammar *string) {
	if regex != nil {
		add(prefix+"regex", &hanmov1.Guide{Guide: &hanmov1.Guide_Regex{Regex: *regex}})
	}
	if choice != nil {
		add(prefix+"choice", &hanmov1.Guide{Guide: &hanmov1.Guide_Choice{Choice: &hanmov1.Choice{Texts: choice}}})
	}
	if grammar != nil {
		add(prefix+"grammar", &hanmov1.Guide{Guide: &hanmov1.Guide_Grammar{Grammar: *grammar}})
	}
}

// one is the guide asked for and its field; nil where texts are free.
func (g *guides) one() (*hanmov1.Guide, string, error) {
	found, err := g.all()
	switch {
	case err != nil || len(found) == 0:
		return nil, "", err
	case len(found) > 1:
		return nil, "", badField(found[1].field, "can't go with "+found[0].field)
	}
	return found[0].guide, found[0].field, nil
}

// {} is a schema, too.
func isSchema(value anything) bool {
	return len(value) > 0 && string(value) != "null"
}

// jsonGuide takes a schema, or a string with one.
func jsonGuide(schema anything) *hanmov1.Guide {
	var text string
	if json.Unmarshal(schema, &text) != nil {
		text = string(schema)
	}
	return &hanmov1.Guide{Guide: &hanmov1.Guide_JsonSchema{JsonSchema: text}}
}

func jsonObject() *hanmov1.Guide {
	return &hanmov1.Guide{Guide: &hanmov1.Guide_JsonSchema{JsonSchema: `{"type": "object"}`}}
}

// names is `base` with the field that the guide came in, where there is one.
func (g *guides) names(base fieldNames) fieldNames {
	_, field, err := g.one()
	if err != nil || field == "" {
		return base
	}
	return base.with("text.guide", field)
}

func isOfGuide(field string) bool { return strings.HasPrefix(field, "text.guide") }
