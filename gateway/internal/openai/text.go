package openai

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"time"

	"hanmo/hanmov1"
)

// common is what every request may have. The second group is hanmo's own or vLLM's.
type common struct {
	Model string  `json:"model"`
	N     *uint32 `json:"n"`
	Seed  *uint64 `json:"seed"`

	Priority int32  `json:"priority"`
	Version  string `json:"version"`

	// These change nothing of what is made.
	User             anything `json:"user"`
	Metadata         anything `json:"metadata"`
	SafetyIdentifier anything `json:"safety_identifier"`
}

func (c *common) request() (*hanmov1.GenerateRequest, error) {
	if c.Model == "" {
		return nil, NewError(http.StatusBadRequest, "missing_required_parameter", "model",
			"model: is required")
	}
	return &hanmov1.GenerateRequest{Model: c.Model, Priority: c.Priority, Version: c.Version}, nil
}

// sampling is what chats and completions share.
type sampling struct {
	common
	guides
	MaxTokens        *uint32            `json:"max_tokens"`
	Temperature      *float32           `json:"temperature"`
	TopP             *float32           `json:"top_p"`
	PresencePenalty  *float32           `json:"presence_penalty"`
	FrequencyPenalty *float32           `json:"frequency_penalty"`
	LogitBias        map[string]float32 `json:"logit_bias"`
	Stop             oneOrMany          `json:"stop"`
	Stream           bool               `json:"stream"`
	StreamOptions    *streamOptions     `json:"stream_options"`

	TopK              *uint32  `json:"top_k"`
	MinP              *float32 `json:"min_p"`
	RepetitionPenalty *float32 `json:"repetition_penalty"`
	MinTokens         *uint32  `json:"min_tokens"`
	StopTokenIDs      []uint32 `json:"stop_token_ids"`
	IncludeStop       bool     `json:"include_stop_str_in_output"`
	IgnoreEOS         bool     `json:"ignore_eos"`

	// These change nothing of what is made.
	Store          anything `json:"store"`
	ServiceTier    anything `json:"service_tier"`
	PromptCacheKey anything `json:"prompt_cache_key"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
	// Padding against guesses by packet sizes; there is none to switch off.
	IncludeObfuscation anything `json:"include_obfuscation"`
}

func (s *sampling) parameters() (*hanmov1.TextParameters, error) {
	text := &hanmov1.TextParameters{
		MaxTokens: s.MaxTokens, Temperature: s.Temperature, TopK: s.TopK, TopP: s.TopP, MinP: s.MinP,
		RepetitionPenalty: s.RepetitionPenalty, PresencePenalty: s.PresencePenalty,
		FrequencyPenalty: s.FrequencyPenalty, Stop: s.Stop, StopTokenIds: s.StopTokenIDs,
		IncludeStop: s.IncludeStop, Seed: s.Seed, N: s.N, IgnoreEos: s.IgnoreEOS, MinTokens: s.MinTokens,
	}
	var err error
	if text.Guide, _, err = s.one(); err != nil {
		return nil, err
	}
	for key, bias := range s.LogitBias {
		id, err := strconv.ParseUint(key, 10, 32)
		if err != nil {
			return nil, badField("logit_bias", "its keys are token ids, got "+strconv.Quote(key))
		}
		if text.LogitBias == nil {
			text.LogitBias = map[uint32]float32{}
		}
		text.LogitBias[uint32(id)] = bias
	}
	if s.StreamOptions != nil && !s.Stream {
		return nil, badField("stream_options", "is for streams only")
	}
	return text, nil
}

func (s *sampling) includesUsage() bool {
	return s.StreamOptions != nil && s.StreamOptions.IncludeUsage
}

// completion is the envelope of an answer of either kind, whole or as a chunk of a stream.
type completion struct {
	ID                string `json:"id"`
	Object            string `json:"object"`
	Created           int64  `json:"created"`
	Model             string `json:"model"`
	SystemFingerprint string `json:"system_fingerprint,omitempty"`
	Choices           []any  `json:"choices"`
	Usage             *usage `json:"usage,omitempty"`
}

type usage struct {
	PromptTokens        uint32        `json:"prompt_tokens"`
	CompletionTokens    uint32        `json:"completion_tokens"`
	TotalTokens         uint32        `json:"total_tokens"`
	PromptTokensDetails promptDetails `json:"prompt_tokens_details"`
}

type promptDetails struct {
	CachedTokens uint32 `json:"cached_tokens"`
}

func usageOf(u *hanmov1.Usage) *usage {
	return &usage{
		PromptTokens: u.GetPromptTokens(), CompletionTokens: u.GetCompletionTokens(),
		TotalTokens:         u.GetPromptTokens() + u.GetCompletionTokens(),
		PromptTokensDetails: promptDetails{CachedTokens: u.GetCachedPromptTokens()},
	}
}

func finishReason(reason hanmov1.FinishReason) string {
	if reason == hanmov1.FinishReason_FINISH_REASON_LENGTH {
		return "length"
	}
	return "stop"
}

// choices writes the parts of answers in which chats and completions differ.
type choices interface {
	// whole is a choice of an answer that comes at once.
	whole(text *hanmov1.Text, index uint32, log []tokenLogprob) any
	// delta is new text; first tells whether it is the choice's first.
	delta(delta *hanmov1.TextDelta, first bool, log []tokenLogprob) any
	// end is the last chunk of a choice.
	end(text *hanmov1.Text, index uint32, first bool) any
}

// textCall is one request for texts and how its answers look.
type textCall struct {
	api      *API
	request  *hanmov1.GenerateRequest
	names    fieldNames
	choices  choices
	idPrefix string
	object   string // of a whole answer
	chunk    string // of a chunk
	stream   bool
	usage    bool // at a stream's end

	// Of a stream.
	id      string
	created int64
	begun   map[uint32]bool
	pieces  pieces
	ctx     context.Context
}

func (c *textCall) serve(w http.ResponseWriter, r *http.Request) error {
	c.ctx = r.Context()
	c.created = time.Now().Unix()
	c.pieces = pieces{api: c.api, model: c.request.Model, version: c.request.Version}
	if c.stream {
		c.begun = map[uint32]bool{}
		return c.api.stream(w, r, c.request, c.names, c)
	}
	response, err := c.api.generation.Generate(c.ctx, c.request)
	if err != nil {
		return fromStatus(err, c.names)
	}
	setRequestID(w, response.RequestId)
	c.begin(response.RequestId)
	answer := c.envelope(c.object)
	answer.SystemFingerprint = fingerprint(response)
	answer.Usage = usageOf(response.Usage)
	for _, output := range response.Outputs {
		log, err := c.pieces.logprobs(c.ctx, output.GetText().GetLogprobs())
		if err != nil {
			return fromStatus(err, c.names)
		}
		answer.Choices = append(answer.Choices, c.choices.whole(output.GetText(), output.Index, log))
	}
	return writeJSON(w, answer)
}

func (c *textCall) envelope(object string) *completion {
	return &completion{ID: c.id, Object: object, Created: c.created, Model: c.request.Model,
		Choices: []any{}}
}

// The same seed gives the same text as long as this stays the same.
func fingerprint(response *hanmov1.GenerateResponse) string {
	return cmp.Or(response.Model, "model") + ":" + itoa(response.Version)
}

func (c *textCall) begin(requestID string) { c.id = c.idPrefix + requestID }

func (c *textCall) translate(event *hanmov1.GenerateStreamResponse, out *eventWriter) error {
	if delta := event.GetText(); delta != nil {
		log, err := c.pieces.logprobs(c.ctx, delta.Logprobs)
		if err != nil {
			return err
		}
		c.send(out, c.choices.delta(delta, c.isFirst(delta.Index), log), "")
	}
	if final := event.GetFinal(); final != nil {
		print := fingerprint(final)
		for _, output := range final.Outputs {
			c.send(out, c.choices.end(output.GetText(), output.Index, c.isFirst(output.Index)), print)
		}
		if c.usage {
			last := c.envelope(c.chunk)
			last.SystemFingerprint, last.Usage = print, usageOf(final.Usage)
			out.send("", last)
		}
	}
	return nil
}

func (c *textCall) isFirst(index uint32) bool {
	first := !c.begun[index]
	c.begun[index] = true
	return first
}

func (c *textCall) send(out *eventWriter, choice any, fingerprint string) {
	chunk := c.envelope(c.chunk)
	chunk.SystemFingerprint = fingerprint
	chunk.Choices = append(chunk.Choices, choice)
	out.send("", chunk)
}
