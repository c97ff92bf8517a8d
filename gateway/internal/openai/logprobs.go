package openai

import (
	"context"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"hanmo/hanmov1"
)

// tokenLogprob is a token as chats show it; candidates have no candidates of their own.
type tokenLogprob struct {
	Token       string         `json:"token"`
	Logprob     float64        `json:"logprob"`
	Bytes       []int          `json:"bytes"`
	TopLogprobs []tokenLogprob `json:"top_logprobs,omitempty"`
}

// pieces knows what tokens of a model stand for, once they were asked for.
type pieces struct {
	api            *API
	model, version string
	known          map[uint32][]byte
}

// logprobs in words instead of ids.
func (p *pieces) logprobs(ctx context.Context, log []*hanmov1.TokenLogprob) ([]tokenLogprob, error) {
	if err := p.learn(ctx, log); err != nil {
		return nil, err
	}
	var result []tokenLogprob
	for _, token := range log {
		shown := p.show(token.TokenId, token.Logprob)
		shown.TopLogprobs = []tokenLogprob{}
		for _, candidate := range token.Top {
			shown.TopLogprobs = append(shown.TopLogprobs, p.show(candidate.TokenId, candidate.Logprob))
		}
		result = append(result, shown)
	}
	return result, nil
}

func (p *pieces) learn(ctx context.Context, log []*hanmov1.TokenLogprob) error {
	var ids []uint32
	want := func(id uint32) {
		if _, ok := p.known[id]; !ok {
			p.known[id] = nil
			ids = append(ids, id)
		}
	}
	if p.known == nil {
		p.known = map[uint32][]byte{}
	}
	for _, token := range log {
		want(token.TokenId)
		for _, candidate := range token.Top {
			want(candidate.TokenId)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	reply, err := p.api.generation.Detokenize(ctx,
		&hanmov1.DetokenizeRequest{Model: p.model, Version: p.version, Ids: ids})
	if err != nil {
		return err
	}
	if len(reply.Pieces) != len(ids) {
		return fmt.Errorf("the server told %d pieces of %d tokens", len(reply.Pieces), len(ids))
	}
	for i, id := range ids {
		p.known[id] = reply.Pieces[i]
	}
	return nil
}

func (p *pieces) show(id uint32, logprob float32) tokenLogprob {
	piece := p.known[id]
	numbers := []int{}
	for _, b := range piece {
		numbers = append(numbers, int(b))
	}
	value := float64(logprob)
	if math.IsInf(value, 0) || math.IsNaN(value) {
		value = -9999 // as OpenAI writes what has no number in JSON
	}
	return tokenLogprob{Token: spell(piece), Logprob: value, Bytes: numbers}
}

// spell writes a part of a character as its bytes.
func spell(piece []byte) string {
	if utf8.Valid(piece) {
		return string(piece)
	}
	var text strings.Builder
	text.WriteString("bytes:")
	for _, b := range piece {
		fmt.Fprintf(&text, `\x%02x`, b)
	}
	return text.String()
}
