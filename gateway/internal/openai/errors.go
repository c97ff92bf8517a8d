package openai

import (
	"errors"
	"maps"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hanmo/gateway/internal/upstream"
)

// Error is an answer other than 200.
type Error struct {
	Status int
	Body   ErrorBody
	cause  *status.Status
}

// ErrorBody is OpenAI's error object.
type ErrorBody struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func (e *Error) Error() string { return e.Body.Message }

// NewError makes an error whose type follows from the HTTP status. Empty parts are null.
func NewError(httpStatus int, code, param, message string) *Error {
	e := &Error{Status: httpStatus, Body: ErrorBody{Message: message, Type: errorType(httpStatus)}}
	if code != "" {
		e.Body.Code = &code
	}
	if param != "" {
		e.Body.Param = &param
	}
	return e
}

func errorType(httpStatus int) string {
	switch {
	case httpStatus == http.StatusUnauthorized:
		return "authentication_error"
	case httpStatus == http.StatusForbidden:
		return "permission_error"
	case httpStatus == http.StatusTooManyRequests:
		return "rate_limit_error"
	case httpStatus >= 500:
		return "server_error"
	}
	return "invalid_request_error"
}

func badField(param, message string) *Error {
	return NewError(http.StatusBadRequest, "invalid_value", param, param+": "+message)
}

// fieldNames maps fields of GenerateRequest to those of an endpoint. Others lose the prefix of their
// group only.
type fieldNames map[string]string

func (n fieldNames) of(field string) string {
	if name, ok := n[field]; ok {
		return name
	}
	if name, ok := n["text.guide"]; ok && isOfGuide(field) {
		return name
	}
	for _, group := range []string{"text.", "picture.", "chat.", "parts."} {
		if rest, ok := strings.CutPrefix(field, group); ok {
			return rest
		}
	}
	return field
}

func (n fieldNames) with(field, name string) fieldNames {
	more := maps.Clone(n)
	more[field] = name
	return more
}

var errorCodes = map[codes.Code]string{
	codes.InvalidArgument:   "invalid_value",
	codes.NotFound:          "model_not_found",
	codes.ResourceExhausted: "rate_limit_exceeded",
	codes.Unauthenticated:   "invalid_api_key",
	codes.PermissionDenied:  "permission_denied",
	codes.Unavailable:       "service_unavailable",
	codes.DeadlineExceeded:  "deadline_exceeded",
	codes.Canceled:          "cancelled",
	codes.Unimplemented:     "unsupported",
}

// fromStatus is the error of a call, in the endpoint's words.
func fromStatus(err error, names fieldNames) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	s := status.Convert(err)
	message, param := s.Message(), ""
	if violations := upstream.Violations(s); len(violations) > 0 {
		param = names.of(violations[0].GetField())
		var parts []string
		for _, v := range violations {
			parts = append(parts, names.of(v.GetField())+": "+v.GetDescription())
		}
		message = strings.Join(parts, "; ")
	} else if s.Code() == codes.NotFound {
		param = "model"
	}
	e := NewError(upstream.HTTPStatus(s), errorCodes[s.Code()], param, message)
	e.cause = s
	return e
}

// WriteError answers with an error object.
func WriteError(w http.ResponseWriter, err error) {
	e := fromStatus(err, nil)
	if e.cause != nil {
		upstream.SetRetryAfter(w.Header(), e.cause)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status)
	_ = writeJSON(w, map[string]any{"error": e.Body})
}
