package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// decode reads the body into `value`. Fields that it lacks are refused: an answer that heeds only a
// part of the request would be a wrong one.
func decode(r *http.Request, value any) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return BodyError(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(value)
	if err == nil {
		if _, more := decoder.Token(); more != io.EOF {
			return NewError(http.StatusBadRequest, "invalid_json", "", "the body goes on after its JSON")
		}
		if first := bytes.TrimSpace(body); len(first) == 0 || first[0] != '{' {
			return NewError(http.StatusBadRequest, "invalid_json", "", "the body must be a JSON object")
		}
		return nil
	}
	return fromJSONError(err)
}

// BodyError is the answer to a body that can't be read.
func BodyError(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return NewError(http.StatusRequestEntityTooLarge, "request_too_large", "",
			"the body has more than "+strconv.FormatInt(large.Limit, 10)+" bytes")
	}
	return NewError(http.StatusBadRequest, "invalid_json", "", "the body can't be read: "+err.Error())
}

func fromJSONError(err error) error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		// The path has the names of embedded structs, too.
		field := wrong.Field
		for _, embedded := range []string{"sampling.", "common.", "guides."} {
			field = strings.TrimPrefix(field, embedded)
		}
		return NewError(http.StatusBadRequest, "invalid_type", field,
			strings.TrimPrefix(field+": ", ": ")+"can't be "+wrong.Value)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		name = strings.Trim(name, `"`)
		return NewError(http.StatusBadRequest, "unknown_parameter", name, name+": is not supported")
	}
	return NewError(http.StatusBadRequest, "invalid_json", "", "the body is no JSON of this call: "+err.Error())
}

// A field that is read only to be refused or ignored.
type anything = json.RawMessage

func isSet(value anything) bool {
	switch text := string(bytes.TrimSpace(value)); text {
	case "", "null", "false", "[]", "{}", `""`, `"none"`:
		return false
	default:
		return true
	}
}

// refuseSet refuses fields whose effect hanmo does not have, unless they ask for nothing.
func refuseSet(fields map[string]anything) error {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if isSet(fields[name]) {
			return NewError(http.StatusBadRequest, "unsupported_parameter", name, name+": is not supported")
		}
	}
	return nil
}

// strings that may be one or many.
type oneOrMany []string

func (o *oneOrMany) UnmarshalJSON(data []byte) error {
	var one *string
	if json.Unmarshal(data, &one) == nil {
		if *o = nil; one != nil {
			*o = oneOrMany{*one}
		}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(o))
}

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
