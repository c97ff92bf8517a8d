package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"hanmo/hanmov1"
)

const (
	chatBody  = `{"model": "poet", "messages": [{"role": "user", "content": "山"}]`
	imageBody = `{"model": "painter", "prompt": "山"`
)

func textResponse() *hanmov1.GenerateResponse {
	return &hanmov1.GenerateResponse{
		RequestId: "r-1", Model: "poet", Version: 3,
		Outputs: []*hanmov1.Output{{Output: &hanmov1.Output_Text{Text: &hanmov1.Text{Text: "山",
			FinishReason: hanmov1.FinishReason_FINISH_REASON_EOS, Seed: 7,
			Logprobs: []*hanmov1.TokenLogprob{{TokenId: 1, Logprob: -0.5,
				Top: []*hanmov1.TokenLogprobCandidate{{TokenId: 2, Logprob: -1}}}}}}}},
		Usage: &hanmov1.Usage{PromptTokens: 5, CompletionTokens: 2, CachedPromptTokens: 4},
	}
}

func poet() *fakeServer {
	return &fakeServer{
		generate: func(context.Context, *hanmov1.GenerateRequest) (*hanmov1.GenerateResponse, error) {
			return textResponse(), nil
		},
		stream: func(_ *hanmov1.GenerateRequest, out grpc.ServerStreamingServer[hanmov1.GenerateStreamResponse]) error {
			for _, event := range []*hanmov1.GenerateStreamResponse{
				{Event: &hanmov1.GenerateStreamResponse_Queued{Queued: &hanmov1.QueueUpdate{RequestId: "r-1", Position: 2}}},
				{Event: &hanmov1.GenerateStreamResponse_Text{Text: &hanmov1.TextDelta{Text: "山"}}},
				{Event: &hanmov1.GenerateStreamResponse_Final{Final: textResponse()}},
			} {
				if err := out.Send(event); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func failing(code codes.Code, message string, details ...protoadapt.MessageV1) *fakeServer {
	s, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return &fakeServer{
		generate: func(context.Context, *hanmov1.GenerateRequest) (*hanmov1.GenerateResponse, error) {
			return nil, s.Err()
		},
		stream: func(*hanmov1.GenerateRequest, grpc.ServerStreamingServer[hanmov1.GenerateStreamResponse]) error {
			return s.Err()
		},
	}
}

// same fails unless `got` is JSON of the same value as `want`, whose "created" may differ.
func same(t *testing.T, got, want string) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal([]byte(got), &a); err != nil {
		t.Fatalf("no JSON: %s", got)
	}
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"created", "created_at"} {
		if object, ok := a.(map[string]any); ok && object[field] != nil {
			object[field] = float64(0)
		}
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestChat(t *testing.T) {
	fake := poet()
	front := fake.start(t)
	got := post(t, front, "/v1/chat/completions", chatBody+`, "max_completion_tokens": 9, "stop": "。",
		"logit_bias": {"4": -1.5}, "temperature": 0, "seed": 18446744073709551615, "logprobs": true, "top_logprobs": 1,
		"user": "u", "tools": [], "stream": false, "priority": 3}`,
		"Authorization", "Bearer t", "X-Tenant", "acme", "X-Request-Id", "r-1", "Traceparent", "00-1-2-01")
	same(t, got.body, `{"id": "chatcmpl-r-1", "object": "chat.completion", "created": 0, "model": "poet",
		"system_fingerprint": "poet:3", "choices": [{"index": 0, "message": {"role": "assistant", "content": "山"},
		"logprobs": {"content": [{"token": "bytes:\\xe5", "logprob": -0.5, "bytes": [229],
			"top_logprobs": [{"token": "bytes:\\xb1", "logprob": -1, "bytes": [177]}]}], "refusal": null},
		"finish_reason": "stop", "seed": 7}],
		"usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}}`)
	if got.status != 200 || got.header.Get("X-Request-Id") != "r-1" {
		t.Error(got)
	}
	text := fake.request.GetText()
	if text.GetMaxTokens() != 9 || text.Temperature == nil || text.GetSeed() != 1<<64-1 || text.GetLogprobs() != 1 ||
		text.LogitBias[4] != -1.5 || !reflect.DeepEqual(text.Stop, []string{"。"}) || text.N != nil {
		t.Error(text)
	}
	if r := fake.request; r.Tenant != "acme" || r.RequestId != "r-1" || r.Priority != 3 || r.GetChat().Messages[0].Content != "山" {
		t.Error(r)
	}
	for name, value := range map[string]string{"authorization": "Bearer t", "x-tenant": "acme", "traceparent": "00-1-2-01"} {
		if !reflect.DeepEqual(fake.metadata.Get(name), []string{value}) {
			t.Error(name, fake.metadata.Get(name))
		}
	}
}

func TestChatThinking(t *testing.T) {
	fake := poet()
	front := fake.start(t)
	for body, want := range map[string]*bool{
		``: nil, `, "chat_template_kwargs": {}`: nil,
		`, "chat_template_kwargs": {"enable_thinking": true}`:  proto.Bool(true),
		`, "chat_template_kwargs": {"enable_thinking": false}`: proto.Bool(false),
	} {
		got := post(t, front, "/v1/chat/completions", chatBody+body+`}`)
		if thinking := fake.request.GetChat().Thinking; got.status != 200 || !reflect.DeepEqual(thinking, want) {
			t.Error(body, got, thinking)
		}
	}
}

func TestGuides(t *testing.T) {
	fake := poet()
	front := fake.start(t)
	schema := `{"type": "object", "properties": {"b": {}, "a": {}}}`
	jsonSchema := &hanmov1.Guide{Guide: &hanmov1.Guide_JsonSchema{JsonSchema: schema}}
	jsonObject := &hanmov1.Guide{Guide: &hanmov1.Guide_JsonSchema{JsonSchema: `{"type": "object"}`}}
	regex := &hanmov1.Guide{Guide: &hanmov1.Guide_Regex{Regex: "[0-9]+"}}
	choice := &hanmov1.Guide{Guide: &hanmov1.Guide_Choice{Choice: &hanmov1.Choice{Texts: []string{"是", "否"}}}}
	grammar := &hanmov1.Guide{Guide: &hanmov1.Guide_Grammar{Grammar: `start: "a"`}}
	for fields, want := range map[string]*hanmov1.Guide{
		`"response_format": {"type": "text"}`:        nil,
		`"response_format": null`:                    nil,
		`"response_format": {"type": "json_object"}`: jsonObject,
		`"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema": ` + schema + `}}`: jsonSchema,
		`"guided_json": ` + schema:                          jsonSchema,
		`"guided_json": "{\"type\": \"object\"}"`:           jsonObject,
		`"guided_regex": "[0-9]+"`:                          regex,
		`"guided_choice": ["是", "否"]`:                       choice,
		`"guided_grammar": "start: \"a\""`:                  grammar,
		`"structured_outputs": {"json": ` + schema + `}`:    jsonSchema,
		`"structured_outputs": {"json_object": true}`:       jsonObject,
		`"structured_outputs": {"regex": "[0-9]+"}`:         regex,
		`"structured_outputs": {"choice": ["是", "否"]}`:      choice,
		`"structured_outputs": {"grammar": "start: \"a\""}`: grammar,
	} {
		for path, body := range map[string]string{
			"/v1/chat/completions": chatBody, "/v1/completions": `{"model": "poet", "prompt": "山"`} {
			if got := post(t, front, path, body+", "+fields+"}"); got.status != 200 {
				t.Error(path, fields, got)
			} else if guide := fake.request.GetText().Guide; !proto.Equal(guide, want) {
				t.Error(path, fields, guide)
			}
		}
	}
}

func TestGuideErrorsNameTheirField(t *testing.T) {
	details := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "text.guide.json_schema", Description: "is not JSON"}}}
	fake := failing(codes.InvalidArgument, "text.guide.json_schema: is not JSON", details)
	got := post(t, fake.start(t), "/v1/chat/completions", chatBody+`, "response_format": {"type": "json_object"}}`)
	if got.status != 400 || !strings.Contains(got.body, `"param":"response_format"`) {
		t.Error(got)
	}
}

func TestChatAboutAPicture(t *testing.T) {
	fake := poet()
	front := fake.start(t)
	ask := func(messages string) reply {
		return post(t, front, "/v1/chat/completions", `{"model": "scribe", "messages": [`+messages+`]}`)
	}
	picture := `{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,UE5H", "detail": "low"}}]}`
	if got := ask(picture); got.status != 200 {
		t.Error(got)
	}
	parts := fake.request.GetParts().GetParts()
	if len(parts) != 1 || string(parts[0].GetPicture().GetData()) != "PNG" {
		t.Error(parts)
	}
	if got := ask(picture + `, {"role": "assistant", "content": "一叶"}`); got.status != 200 {
		t.Error(got)
	}
	if parts := fake.request.GetParts().GetParts(); len(parts) != 2 || parts[1].GetText() != "一叶" {
		t.Error(parts)
	}
	for _, messages := range []string{
		`{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}`,
		`{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,!"}}]}`,
		`{"role": "user", "content": [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,UE5H"}}]}`,
		`{"role": "system", "content": "s"}, ` + picture,
		picture + `, ` + picture,
	} {
		if got := ask(messages); got.status != 400 || !strings.Contains(got.body, `"param":"messages`) {
			t.Error(messages, got)
		}
	}
}

func TestChatStream(t *testing.T) {
	got := post(t, poet().start(t), "/v1/chat/completions", chatBody+`, "stream": true, "stream_options": {"include_usage": true}}`)
	if got.status != 200 || got.header.Get("Content-Type") != "text/event-stream" {
		t.Fatal(got)
	}
	events := strings.Split(strings.TrimSpace(got.body), "\n\n")
	if len(events) != 5 || events[0] != ": queued behind 2" || events[4] != "data: [DONE]" {
		t.Fatal(got.body)
	}
	head := `{"id": "chatcmpl-r-1", "object": "chat.completion.chunk", "created": 0, "model": "poet", `
	for i, want := range []string{
		`"choices": [{"index": 0, "delta": {"role": "assistant", "content": "山"}, "logprobs": null, "finish_reason": null}]}`,
		`"system_fingerprint": "poet:3", "choices": [{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop", "seed": 7}]}`,
		`"system_fingerprint": "poet:3", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
			"prompt_tokens_details": {"cached_tokens": 4}}}`,
	} {
		same(t, strings.TrimPrefix(events[i+1], "data: "), head+want)
	}
}

func TestCompletions(t *testing.T) {
	fake := poet()
	front := fake.start(t)
	got := post(t, front, "/v1/completions", `{"model": "poet", "prompt": ["山"], "logprobs": 1, "echo": false, "suffix": null}`)
	same(t, got.body, `{"id": "cmpl-r-1", "object": "text_completion", "created": 0, "model": "poet", "system_fingerprint": "poet:3",
		"choices": [{"index": 0, "text": "山", "finish_reason": "stop", "seed": 7, "logprobs": {"tokens": ["bytes:\\xe5"],
		"token_logprobs": [-0.5], "top_logprobs": [{"bytes:\\xb1": -1}], "text_offset": [0]}}],
		"usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}}`)
	if fake.request.GetPrompt() != "山" || fake.request.GetText().GetMaxTokens() != 16 {
		t.Error(fake.request)
	}
	for _, ids := range []string{"[1, 2]", "[[1, 2]]"} {
		post(t, front, "/v1/completions", `{"model": "poet", "prompt": `+ids+`}`)
		if !reflect.DeepEqual(fake.request.GetTokenIds().GetIds(), []uint32{1, 2}) {
			t.Error(ids, fake.request)
		}
	}
}

func TestImages(t *testing.T) {
	final := &hanmov1.GenerateResponse{RequestId: "r-2", Outputs: []*hanmov1.Output{{Output: &hanmov1.Output_Picture{
		Picture: &hanmov1.Picture{Format: hanmov1.PictureFormat_PICTURE_FORMAT_JPEG, Width: 64, Height: 32, Seed: 7, Steps: 4}}}}}
	fake := &fakeServer{
		generate: func(context.Context, *hanmov1.GenerateRequest) (*hanmov1.GenerateResponse, error) {
			whole := proto.CloneOf(final.Outputs[0].GetPicture())
			whole.Data = []byte("abcdef")
			return &hanmov1.GenerateResponse{RequestId: "r-2",
				Outputs: []*hanmov1.Output{{Output: &hanmov1.Output_Picture{Picture: whole}}}}, nil
		},
		stream: func(_ *hanmov1.GenerateRequest, out grpc.ServerStreamingServer[hanmov1.GenerateStreamResponse]) error {
			preview := &hanmov1.GenerateStreamResponse{Event: &hanmov1.GenerateStreamResponse_Preview{
				Preview: &hanmov1.Preview{Data: []byte("xyz")}}}
			for _, event := range []*hanmov1.GenerateStreamResponse{
				{Event: &hanmov1.GenerateStreamResponse_Queued{Queued: &hanmov1.QueueUpdate{RequestId: "r-2"}}},
				preview, preview,
				{Event: &hanmov1.GenerateStreamResponse_Picture{Picture: &hanmov1.PictureChunk{Data: []byte("abc")}}},
				{Event: &hanmov1.GenerateStreamResponse_Picture{Picture: &hanmov1.PictureChunk{Data: []byte("def"), Offset: 3}}},
				{Event: &hanmov1.GenerateStreamResponse_Final{Final: final}},
			} {
				if err := out.Send(event); err != nil {
					return err
				}
			}
			return nil
		},
	}
	front := fake.start(t)
	got := post(t, front, "/v1/images/generations", imageBody+`, "n": 1, "size": "64x32", "output_format": "jpeg",
		"output_compression": 80, "seed": 7, "steps": 4, "negative_prompt": "雾", "response_format": "b64_json"}`)
	same(t, got.body, `{"created": 0, "background": "opaque", "output_format": "jpeg", "size": "64x32",
		"data": [{"b64_json": "YWJjZGVm", "seed": 7, "steps": 4}]}`)
	picture := fake.request.GetPicture()
	if picture.GetWidth() != 64 || picture.GetHeight() != 32 || picture.GetQuality() != 80 || picture.GetCount() != 1 ||
		picture.Format != hanmov1.PictureFormat_PICTURE_FORMAT_JPEG || picture.NegativePrompt != "雾" {
		t.Error(picture)
	}
	score := float32(0.25)
	final.Outputs[0].GetPicture().Score = &score
	got = post(t, front, "/v1/images/generations", imageBody+`, "n": 1, "best_of": 8}`)
	same(t, got.body, `{"created": 0, "background": "opaque", "output_format": "jpeg", "size": "64x32",
		"data": [{"b64_json": "YWJjZGVm", "seed": 7, "steps": 4, "score": 0.25}]}`)
	if best := fake.request.GetPicture().GetBestOf(); best != 8 {
		t.Error("best of", best)
	}
	got = post(t, front, "/v1/images/generations", imageBody+`, "stream": true, "partial_images": 1}`)
	if every := fake.request.GetPicture().PreviewEverySteps; every != 10 { // of the model's 20
		t.Error("previews every", every)
	}
	events := strings.Split(strings.TrimSpace(got.body), "\n\n")
	if len(events) != 4 || events[3] != "data: [DONE]" {
		t.Fatal(got.body)
	}
	same(t, strings.TrimPrefix(events[1], "event: image_generation.partial_image\ndata: "),
		`{"type": "image_generation.partial_image", "b64_json": "eHl6", "created_at": 0, "background": "opaque",
		"output_format": "jpeg", "index": 0, "partial_image_index": 0}`)
	same(t, strings.TrimPrefix(events[2], "event: image_generation.completed\ndata: "),
		`{"type": "image_generation.completed", "b64_json": "YWJjZGVm", "created_at": 0, "background": "opaque",
		"output_format": "jpeg", "size": "64x32", "index": 0, "seed": 7, "steps": 4, "score": 0.25}`)
}

func TestModels(t *testing.T) {
	front := (&fakeServer{}).start(t)
	got := call(t, front, "GET", "/v1/models", "")
	var list struct {
		Data []struct{ ID string }
	}
	if err := json.Unmarshal([]byte(got.body), &list); err != nil || len(list.Data) != 1 || list.Data[0].ID != "poet" {
		t.Error(got.body)
	}
	if got := call(t, front, "GET", "/v1/models/painter", ""); !strings.Contains(got.body, `"id":"painter"`) {
		t.Error(got)
	}
	got = call(t, front, "GET", "/v1/models/none", "")
	same(t, got.body, `{"error": {"message": "no model \"none\"", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}}`)
	if got.status != 404 {
		t.Error(got.status)
	}
}

func TestRefusedBeforeTheServer(t *testing.T) {
	front := (&fakeServer{}).start(t, "--max-request-bytes=2000")
	for _, c := range []struct {
		path, body string
		status     int
		param      string
	}{
		{"/v1/chat/completions", `{`, 400, ""},
		{"/v1/chat/completions", `null`, 400, ""},
		{"/v1/chat/completions", `[]`, 400, ""},
		{"/v1/chat/completions", chatBody + `} {}`, 400, ""},
		{"/v1/chat/completions", `{"messages": []}`, 400, "model"},
		{"/v1/chat/completions", chatBody + `, "colour": 1}`, 400, "colour"},
		{"/v1/chat/completions", chatBody + `, "temperature": "hot"}`, 400, "temperature"},
		{"/v1/chat/completions", chatBody + `, "max_tokens": -1}`, 400, "max_tokens"},
		{"/v1/chat/completions", chatBody + `, "n": 1.5}`, 400, "n"},
		{"/v1/chat/completions", chatBody + `, "tools": [{"type": "function"}]}`, 400, "tools"},
		{"/v1/chat/completions", chatBody + `, "response_format": {"type": "json_schema"}}`, 400, "response_format"},
		{"/v1/chat/completions", chatBody + `, "response_format": {"type": "xml"}}`, 400, "response_format"},
		{"/v1/chat/completions", chatBody + `, "response_format": {"type": "json_object"}, "guided_regex": "a"}`, 400, "guided_regex"},
		{"/v1/chat/completions", chatBody + `, "guided_regex": 5}`, 400, "guided_regex"},
		{"/v1/completions", `{"model": "poet", "prompt": "山", "structured_outputs": {"regex": "a", "choice": ["b"]}}`, 400, "structured_outputs.choice"},
		{"/v1/chat/completions", chatBody + `, "top_logprobs": 1}`, 400, "top_logprobs"},
		{"/v1/chat/completions", chatBody + `, "stream_options": {}}`, 400, "stream_options"},
		{"/v1/chat/completions", chatBody + `, "logit_bias": {"a": 1}}`, 400, "logit_bias"},
		{"/v1/chat/completions", `{"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}`, 400, "messages"},
		{"/v1/chat/completions", `{"model": "m", "messages": [{"role": "user"}]}`, 400, "messages[0].content"},
		{"/v1/chat/completions", chatBody + `, "user": "` + strings.Repeat("x", 2000) + `"}`, 413, ""},
		{"/v1/completions", `{"model": "m"}`, 400, "prompt"},
		{"/v1/completions", `{"model": "m", "prompt": ["a", "b"]}`, 400, "prompt"},
		{"/v1/completions", `{"model": "m", "prompt": {}}`, 400, "prompt"},
		{"/v1/completions", `{"model": "m", "prompt": "a", "echo": true}`, 400, "echo"},
		{"/v1/completions", `{"model": "m", "prompt": "a", "best_of": 2}`, 400, "best_of"},
		{"/v1/images/generations", imageBody + `, "size": "64"}`, 400, "size"},
		{"/v1/images/generations", imageBody + `, "response_format": "url"}`, 400, "response_format"},
		{"/v1/images/generations", imageBody + `, "partial_images": 1}`, 400, "partial_images"},
		{"/v1/images/generations", imageBody + `, "style": "vivid"}`, 400, "style"},
	} {
		got := post(t, front, c.path, c.body)
		var body struct {
			Error struct {
				Message, Type string
				Param         *string
			}
		}
		if err := json.Unmarshal([]byte(got.body), &body); err != nil {
			t.Fatal(got)
		}
		param := ""
		if body.Error.Param != nil {
			param = *body.Error.Param
		}
		if got.status != c.status || param != c.param || body.Error.Message == "" || body.Error.Type != "invalid_request_error" {
			t.Errorf("%s: %d %s", c.body, got.status, got.body)
		}
	}
}

func TestErrorsOfTheServer(t *testing.T) {
	retry := &errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)}
	bad := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "text.top_k", Description: "too large"}, {Field: "chat.messages[0].role", Description: "unknown"}}}
	for _, c := range []struct {
		fake               *fakeServer
		status             int
		kind, code, param  string
		message, retrySecs string
	}{
		{failing(codes.InvalidArgument, "no", bad), 400, "invalid_request_error", "invalid_value", "top_k",
			"top_k: too large; messages[0].role: unknown", ""},
		{failing(codes.NotFound, "no model"), 404, "invalid_request_error", "model_not_found", "model", "no model", ""},
		{failing(codes.ResourceExhausted, "full", retry), 429, "rate_limit_error", "rate_limit_exceeded", "", "full", "2"},
		{failing(codes.Unavailable, "away"), 503, "server_error", "service_unavailable", "", "away", "1"},
		{failing(codes.DeadlineExceeded, "late"), 504, "server_error", "deadline_exceeded", "", "late", ""},
		{failing(codes.Unauthenticated, "who"), 401, "authentication_error", "invalid_api_key", "", "who", ""},
		{failing(codes.Internal, "oh"), 500, "server_error", "", "", "oh", ""},
	} {
		front := c.fake.start(t)
		null := func(text string) string {
			if text == "" {
				return "null"
			}
			return `"` + text + `"`
		}
		want := `{"error": {"message": "` + c.message + `", "type": "` + c.kind + `", "param": ` + null(c.param) + `, "code": ` + null(c.code) + `}}`
		for _, stream := range []string{"false", "true"} {
			got := post(t, front, "/v1/chat/completions", chatBody+`, "stream": `+stream+`}`)
			same(t, got.body, want)
			if got.status != c.status || got.header.Get("Retry-After") != c.retrySecs || got.header.Get("Content-Type") != "application/json" {
				t.Error(got)
			}
		}
		for _, path := range []string{"generate", "generate:stream"} {
			got := post(t, front, "/hanmo/v1/"+path, `{"model": "poet", "prompt": "山"}`)
			if got.status != c.status || got.header.Get("Retry-After") != c.retrySecs || !strings.Contains(got.body, `"code":`) {
				t.Error(got)
			}
		}
	}
}

func TestAnErrorInTheMiddleOfAStream(t *testing.T) {
	fake := &fakeServer{stream: func(_ *hanmov1.GenerateRequest, out grpc.ServerStreamingServer[hanmov1.GenerateStreamResponse]) error {
		_ = out.Send(&hanmov1.GenerateStreamResponse{Event: &hanmov1.GenerateStreamResponse_Queued{Queued: &hanmov1.QueueUpdate{}}})
		return status.Error(codes.Unavailable, "gone")
	}}
	front := fake.start(t)
	got := post(t, front, "/v1/chat/completions", chatBody+`, "stream": true}`)
	if got.status != 200 || !strings.Contains(got.body, "event: error\ndata: {\"error\":{\"message\":\"gone\"") || strings.Contains(got.body, "DONE") {
		t.Error(got)
	}
	got = post(t, front, "/hanmo/v1/generate:stream", `{"model": "poet", "prompt": "山"}`)
	if got.status != 200 || !strings.Contains(got.body, "event: error\ndata: {\"code\":14") {
		t.Error(got)
	}
}

func TestOwnCalls(t *testing.T) {
	fake := poet()
	front := fake.start(t)
	got := post(t, front, "/hanmo/v1/generate", `{"model": "poet", "prompt": "山", "tenant": "mine", "text": {"maxTokens": 3, "top_k": 2}}`,
		"X-Tenant", "acme")
	if got.status != 200 || !strings.Contains(got.body, `"finishReason":"FINISH_REASON_EOS"`) {
		t.Error(got)
	}
	if text := fake.request.GetText(); text.GetMaxTokens() != 3 || text.GetTopK() != 2 || fake.request.Tenant != "acme" {
		t.Error(fake.request)
	}
	got = post(t, front, "/hanmo/v1/generate:stream", `{"model": "poet", "prompt": "山"}`)
	events := strings.Split(strings.TrimSpace(got.body), "\n\n")
	if got.header.Get("Content-Type") != "text/event-stream" || len(events) != 3 ||
		!strings.HasPrefix(events[0], `data: {"queued":`) || !strings.HasPrefix(events[2], `data: {"final":`) {
		t.Error(got)
	}
	for _, body := range []string{`{"colour": 1}`, `{"model": 3}`, `{`} {
		if got := post(t, front, "/hanmo/v1/generate", body); got.status != 400 || !strings.Contains(got.body, `"code":3`) {
			t.Error(got)
		}
	}
	if got := call(t, front, "GET", "/hanmo/v1/models", ""); !strings.Contains(got.body, `"poet"`) {
		t.Error(got)
	}
}

func TestTheDeadlineReachesTheServer(t *testing.T) {
	var left time.Duration
	fake := &fakeServer{generate: func(ctx context.Context, _ *hanmov1.GenerateRequest) (*hanmov1.GenerateResponse, error) {
		left = 0
		if deadline, ok := ctx.Deadline(); ok {
			left = time.Until(deadline)
		}
		return textResponse(), nil
	}}
	check := func(front *httptest.Server, header string, least, most time.Duration) {
		t.Helper()
		got := post(t, front, "/v1/chat/completions", chatBody+"}", "X-Request-Timeout", header)
		if got.status != 200 || left < least || left > most {
			t.Error(header, got, left)
		}
	}
	front := fake.start(t)
	check(front, "", 0, 0)
	check(front, "90", time.Minute, 90*time.Second)
	check(front, "90.5s", time.Minute, 91*time.Second)
	check(fake.start(t, "--request-timeout=50s"), "1h", 30*time.Second, 50*time.Second)
	for _, bad := range []string{"0", "-1", "soon"} {
		if got := post(t, front, "/v1/chat/completions", chatBody+"}", "X-Request-Timeout", bad); got.status != 400 {
			t.Error(bad, got)
		}
	}
}

func TestAClientThatLeavesEndsTheCall(t *testing.T) {
	ended := make(chan struct{})
	fake := &fakeServer{stream: func(_ *hanmov1.GenerateRequest, out grpc.ServerStreamingServer[hanmov1.GenerateStreamResponse]) error {
		_ = out.Send(&hanmov1.GenerateStreamResponse{Event: &hanmov1.GenerateStreamResponse_Queued{Queued: &hanmov1.QueueUpdate{}}})
		<-out.Context().Done()
		close(ended)
		return out.Context().Err()
	}}
	front := fake.start(t)
	ctx, leave := context.WithCancel(context.Background())
	request, _ := http.NewRequestWithContext(ctx, "POST", front.URL+"/v1/chat/completions", strings.NewReader(chatBody+`, "stream": true}`))
	request.Header.Set("Content-Type", "application/json")
	reply, err := front.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if _, err := io.ReadFull(reply.Body, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	leave()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the call goes on")
	}
}

func TestPathsMethodsAndTypes(t *testing.T) {
	front := (&fakeServer{}).start(t)
	if got := call(t, front, "GET", "/v1/nothing", ""); got.status != 404 || !strings.Contains(got.body, `"unknown_url"`) {
		t.Error(got)
	}
	if got := call(t, front, "GET", "/v1/chat/completions", ""); got.status != 405 || got.header.Get("Allow") != "POST" {
		t.Error(got)
	}
	if got := call(t, front, "GET", "/hanmo/v1/nothing", ""); got.status != 404 || !strings.Contains(got.body, `"code":5`) {
		t.Error(got)
	}
	if got := call(t, front, "POST", "/v1/chat/completions", chatBody+"}", "Content-Type", "text/plain"); got.status != 415 {
		t.Error(got)
	}
	for _, path := range []string{"/v1/models", "/hanmo/v1/models"} {
		if got := call(t, front, "GET", path, "", "X-Tenant", "山"); got.status != 400 || !strings.Contains(got.body, "X-Tenant") {
			t.Error(got)
		}
	}
	if got := call(t, front, "GET", "/openapi.yaml", ""); !strings.HasPrefix(got.body, "openapi: 3.1.0\n") {
		t.Error(got)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	theirs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hanmo_of_the_server 1\n")
	}))
	defer theirs.Close()
	fake := &fakeServer{}
	front := fake.start(t, "--upstream-metrics="+strings.TrimPrefix(theirs.URL, "http://"))
	if got := call(t, front, "GET", "/health", ""); got.status != 200 {
		t.Error(got)
	}
	fake.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	if got := call(t, front, "GET", "/health", ""); got.status != 503 {
		t.Error(got)
	}
	if got := call(t, front, "GET", "/health/live", ""); got.status != 200 {
		t.Error(got)
	}
	got := call(t, front, "GET", "/metrics", "").body
	for _, line := range []string{
		`hanmo_gateway_requests_total{code="503",route="GET /health"} 1`,
		"hanmo_gateway_upstream_metrics_up 1", "\nhanmo_of_the_server 1\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("no %q in %s", line, got)
		}
	}
	theirs.Close()
	if got := call(t, front, "GET", "/metrics", "").body; !strings.Contains(got, "hanmo_gateway_upstream_metrics_up 0") {
		t.Error(got)
	}
}
