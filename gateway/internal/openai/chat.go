package openai

import (
	"net/http"

	"hanmo/hanmov1"
)

type chatRequest struct {
	sampling
	Messages            []chatMessage `json:"messages"`
	MaxCompletionTokens *uint32       `json:"max_completion_tokens"`
	Logprobs            bool          `json:"logprobs"`
	TopLogprobs         *uint32       `json:"top_logprobs"`

	// vLLM's.
	ChatTemplateKwargs struct {
		EnableThinking *bool `json:"enable_thinking"`
	} `json:"chat_template_kwargs"`

	Tools             anything `json:"tools"`
	ToolChoice        anything `json:"tool_choice"`
	Functions         anything `json:"functions"`
	FunctionCall      anything `json:"function_call"`
	ParallelToolCalls anything `json:"parallel_tool_calls"`
	ReasoningEffort   anything `json:"reasoning_effort"`
	WebSearchOptions  anything `json:"web_search_options"`
	Audio             anything `json:"audio"`
	Prediction        anything `json:"prediction"`
	Modalities        []string `json:"modalities"`
}

// chatMessage may also be what an answer had, with parts that say nothing.
type chatMessage struct {
	Role         string   `json:"role"`
	Content      *content `json:"content"`
	Name         anything `json:"name"`
	Refusal      anything `json:"refusal"`
	Annotations  anything `json:"annotations"`
	Audio        anything `json:"audio"`
	ToolCalls    anything `json:"tool_calls"`
	FunctionCall anything `json:"function_call"`
	ToolCallID   anything `json:"tool_call_id"`
}

var chatNames = fieldNames{
	"text.logprobs":       "top_logprobs",
	"text.include_stop":   "include_stop_str_in_output",
	"chat":                "messages",
	"chat.thinking":       "chat_template_kwargs.enable_thinking",
	"parts.parts":         "messages",
	"text.stop_token_ids": "stop_token_ids",

	"parts.parts[0].picture":      "messages[0].content",
	"parts.parts[0].picture.data": "messages[0].content",
	"parts.parts[1].text":         "messages[1].content",
}

func (a *API) chat(w http.ResponseWriter, r *http.Request) error {
	var body chatRequest
	if err := decode(r, &body); err != nil {
		return err
	}
	request, err := body.toHanmo()
	if err != nil {
		return err
	}
	names := body.names(chatNames)
	if body.MaxCompletionTokens != nil {
		names = names.with("text.max_tokens", "max_completion_tokens")
	}
	call := &textCall{api: a, request: request, names: names, choices: chatChoices{body.Logprobs},
		idPrefix: "chatcmpl-", object: "chat.completion", chunk: "chat.completion.chunk",
		stream: body.Stream, usage: body.includesUsage()}
	return call.serve(w, r)
}

func (b *chatRequest) toHanmo() (*hanmov1.GenerateRequest, error) {
	err := refuseSet(map[string]anything{
		"tools": b.Tools, "tool_choice": noAuto(b.ToolChoice), "functions": b.Functions,
		"function_call": noAuto(b.FunctionCall), "reasoning_effort": b.ReasoningEffort,
		"web_search_options": b.WebSearchOptions, "audio": b.Audio, "prediction": b.Prediction,
	})
	if err != nil {
		return nil, err
	}
	for _, kind := range b.Modalities {
		if kind != "text" {
			return nil, badField("modalities", "must be [\"text\"]")
		}
	}
	request, err := b.request()
	if err != nil {
		return nil, err
	}
	text, err := b.parameters()
	if err != nil {
		return nil, err
	}
	if b.MaxCompletionTokens != nil {
		text.MaxTokens = b.MaxCompletionTokens
	}
	if b.TopLogprobs != nil && !b.Logprobs {
		return nil, badField("top_logprobs", "needs logprobs to be true")
	}
	if b.Logprobs {
		if text.Logprobs = b.TopLogprobs; text.Logprobs == nil {
			text.Logprobs = new(uint32)
		}
	}
	chat := &hanmov1.Chat{Thinking: b.ChatTemplateKwargs.EnableThinking}
	for i, message := range b.Messages {
		turn, err := message.toHanmo("messages[" + itoa(uint32(i)) + "]")
		if err != nil {
			return nil, err
		}
		chat.Messages = append(chat.Messages, turn)
	}
	request.Input = &hanmov1.GenerateRequest_Chat{Chat: chat}
	if b.hasPicture() {
		parts, err := b.parts()
		if err != nil {
			return nil, err
		}
		request.Input = &hanmov1.GenerateRequest_Parts{Parts: parts}
	}
	request.Parameters = &hanmov1.GenerateRequest_Text{Text: text}
	return request, nil
}

func (m *chatMessage) toHanmo(path string) (*hanmov1.ChatMessage, error) {
	err := refuseSet(map[string]anything{
		path + ".tool_calls": m.ToolCalls, path + ".function_call": m.FunctionCall,
		path + ".tool_call_id": m.ToolCallID, path + ".audio": m.Audio,
	})
	if err != nil {
		return nil, err
	}
	role := m.Role
	if role == "developer" { // the newer name of the same role
		role = "system"
	}
	if m.Content == nil {
		return nil, badField(path+".content", "is required")
	}
	return &hanmov1.ChatMessage{Role: role, Content: m.Content.text}, nil
}

// "auto" without tools asks for nothing.
func noAuto(value anything) anything {
	if string(value) == `"auto"` {
		return nil
	}
	return value
}

type chatChoices struct{ logprobs bool }

type chatChoice struct {
	Index        uint32        `json:"index"`
	Message      *chatAnswer   `json:"message,omitempty"`
	Delta        *chatAnswer   `json:"delta,omitempty"`
	Logprobs     *chatLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
	Seed         uint64        `json:"seed,omitempty"`
}

type chatAnswer struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
	Refusal *string `json:"refusal,omitempty"`
}

type chatLogprobs struct {
	Content []tokenLogprob `json:"content"`
	Refusal []tokenLogprob `json:"refusal"`
}

func (c chatChoices) log(log []tokenLogprob) *chatLogprobs {
	if !c.logprobs {
		return nil
	}
	return &chatLogprobs{Content: append([]tokenLogprob{}, log...)}
}

func (c chatChoices) whole(text *hanmov1.Text, index uint32, log []tokenLogprob) any {
	reason := finishReason(text.FinishReason)
	return &chatChoice{Index: index, Message: &chatAnswer{Role: "assistant", Content: &text.Text},
		Logprobs: c.log(log), FinishReason: &reason, Seed: text.Seed}
}

func (c chatChoices) delta(delta *hanmov1.TextDelta, first bool, log []tokenLogprob) any {
	answer := &chatAnswer{Content: &delta.Text}
	if first {
		answer.Role = "assistant"
	}
	return &chatChoice{Index: delta.Index, Delta: answer, Logprobs: c.log(log)}
}

func (c chatChoices) end(text *hanmov1.Text, index uint32, first bool) any {
	answer := &chatAnswer{}
	if first {
		answer.Role = "assistant"
	}
	reason := finishReason(text.FinishReason)
	return &chatChoice{Index: index, Delta: answer, FinishReason: &reason, Seed: text.Seed}
}
