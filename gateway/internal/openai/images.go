package openai

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"hanmo/hanmov1"
)

type imageRequest struct {
	common
	Prompt            *string `json:"prompt"`
	Size              *string `json:"size"`
	ResponseFormat    *string `json:"response_format"`
	OutputFormat      *string `json:"output_format"`
	OutputCompression *uint32 `json:"output_compression"`
	Stream            bool    `json:"stream"`
	PartialImages     *uint32 `json:"partial_images"`

	NegativePrompt string   `json:"negative_prompt"`
	Steps          *uint32  `json:"steps"`
	MinSteps       *uint32  `json:"min_steps"`
	Guidance       *float32 `json:"guidance"`
	Sampler        string   `json:"sampler"`
	BestOf         *uint32  `json:"best_of"`

	// Of models that paint by tokens.
	Temperature *float32 `json:"temperature"`
	TopK        *uint32  `json:"top_k"`
	TopP        *float32 `json:"top_p"`

	Quality    *string `json:"quality"`
	Background *string `json:"background"`
	Moderation *string `json:"moderation"`
	Style      *string `json:"style"`
}

const maxPartialImages = 3

var formats = map[string]hanmov1.PictureFormat{
	"png":  hanmov1.PictureFormat_PICTURE_FORMAT_PNG,
	"jpeg": hanmov1.PictureFormat_PICTURE_FORMAT_JPEG,
	"webp": hanmov1.PictureFormat_PICTURE_FORMAT_WEBP,
}

func formatName(format hanmov1.PictureFormat) string {
	for name, other := range formats {
		if other == format {
			return name
		}
	}
	return ""
}

var imageNames = fieldNames{
	"picture.count":               "n",
	"picture.width":               "size",
	"picture.height":              "size",
	"picture.format":              "output_format",
	"picture.quality":             "output_compression",
	"picture.preview_every_steps": "partial_images",
	"picture.best_of":             "best_of",
}

func (a *API) images(w http.ResponseWriter, r *http.Request) error {
	var body imageRequest
	if err := decode(r, &body); err != nil {
		return err
	}
	request, err := body.toHanmo()
	if err != nil {
		return err
	}
	created := time.Now().Unix()
	if body.Stream {
		to := &imageEvents{created: created, partial: map[uint32]uint32{}, files: map[uint32][]byte{}}
		if body.PartialImages != nil && *body.PartialImages > 0 {
			to.partials = *body.PartialImages
			if err := a.spreadPreviews(r.Context(), request, to.partials); err != nil {
				return fromStatus(err, imageNames)
			}
		}
		return a.stream(w, r, request, imageNames, to)
	}
	response, err := a.generation.Generate(r.Context(), request)
	if err != nil {
		return fromStatus(err, imageNames)
	}
	setRequestID(w, response.RequestId)
	return writeJSON(w, imagesOf(response, created))
}

func (b *imageRequest) toHanmo() (*hanmov1.GenerateRequest, error) {
	only := []struct {
		name    string
		value   *string
		allowed []string
	}{
		{"response_format", b.ResponseFormat, []string{"b64_json"}},
		{"quality", b.Quality, []string{"auto", "standard"}},
		{"background", b.Background, []string{"auto", "opaque"}},
		{"moderation", b.Moderation, []string{"auto", "low"}},
		{"style", b.Style, nil},
		{"output_format", b.OutputFormat, []string{"png", "jpeg", "webp"}},
	}
	for _, field := range only {
		if err := allow(field.name, field.value, field.allowed); err != nil {
			return nil, err
		}
	}
	request, err := b.request()
	if err != nil {
		return nil, err
	}
	if b.Prompt == nil {
		return nil, NewError(http.StatusBadRequest, "missing_required_parameter", "prompt",
			"prompt: is required")
	}
	if b.PartialImages != nil && (!b.Stream || *b.PartialImages > maxPartialImages) {
		return nil, badField("partial_images", "is for streams only, from 0 to 3")
	}
	picture := &hanmov1.PictureParameters{
		NegativePrompt: b.NegativePrompt, Steps: b.Steps, MinSteps: b.MinSteps, Guidance: b.Guidance,
		Seed: b.Seed, Count: b.N, Sampler: b.Sampler, Quality: b.OutputCompression,
		BestOf: b.BestOf, Temperature: b.Temperature, TopK: b.TopK, TopP: b.TopP,
	}
	if b.OutputFormat != nil {
		picture.Format = formats[*b.OutputFormat]
	}
	if b.Size != nil && *b.Size != "auto" {
		width, height, err := parseSize(*b.Size)
		if err != nil {
			return nil, err
		}
		picture.Width, picture.Height = &width, &height
	}
	request.Input = &hanmov1.GenerateRequest_Prompt{Prompt: *b.Prompt}
	request.Parameters = &hanmov1.GenerateRequest_Picture{Picture: picture}
	return request, nil
}

func allow(name string, value *string, allowed []string) error {
	if value == nil {
		return nil
	}
	for _, one := range allowed {
		if *value == one {
			return nil
		}
	}
	if len(allowed) == 0 {
		return badField(name, "is not supported")
	}
	return badField(name, "must be one of "+strings.Join(allowed, ", "))
}

func parseSize(size string) (width, height uint32, err error) {
	before, after, _ := strings.Cut(size, "x")
	w, widthErr := strconv.ParseUint(before, 10, 32)
	h, heightErr := strconv.ParseUint(after, 10, 32)
	if widthErr != nil || heightErr != nil {
		return 0, 0, badField("size", "must be WIDTHxHEIGHT in pixels, or auto")
	}
	return uint32(w), uint32(h), nil
}

// spreadPreviews asks for as many previews as there should be partial images; how far they lie apart
// depends on the number of steps.
func (a *API) spreadPreviews(ctx context.Context, request *hanmov1.GenerateRequest, count uint32) error {
	picture := request.GetPicture()
	steps := picture.GetSteps()
	if picture.Steps == nil {
		model, err := a.models.DescribeModel(ctx,
			&hanmov1.DescribeModelRequest{Name: request.Model, Version: request.Version})
		if err != nil {
			return err
		}
		steps = model.GetPicture().GetDefaultSteps()
	}
	picture.PreviewEverySteps = max(1, steps/(count+1))
	return nil
}

type imagesAnswer struct {
	Created      int64   `json:"created"`
	Background   string  `json:"background"`
	OutputFormat string  `json:"output_format"`
	Size         string  `json:"size"`
	Data         []image `json:"data"`
}

type image struct {
	B64JSON string `json:"b64_json"`
	Seed    uint64 `json:"seed"`
	Steps   uint32 `json:"steps"`
	// With best_of.
	Score *float32 `json:"score,omitempty"`
}

func sizeOf(picture *hanmov1.Picture) string {
	return fmt.Sprintf("%dx%d", picture.GetWidth(), picture.GetHeight())
}

// scoreOf is nil for a picture that was not scored.
func scoreOf(picture *hanmov1.Picture) *float32 {
	if picture == nil {
		return nil
	}
	return picture.Score
}

func imagesOf(response *hanmov1.GenerateResponse, created int64) *imagesAnswer {
	answer := &imagesAnswer{Created: created, Background: "opaque", Data: []image{}}
	for _, output := range response.Outputs {
		picture := output.GetPicture()
		answer.OutputFormat, answer.Size = formatName(picture.GetFormat()), sizeOf(picture)
		answer.Data = append(answer.Data, image{
			B64JSON: base64.StdEncoding.EncodeToString(picture.GetData()),
			Seed:    picture.GetSeed(), Steps: picture.GetSteps(), Score: scoreOf(picture)})
	}
	return answer
}

// imageEvents makes the events of a stream of pictures. `index` tells which of n, or of the
// candidates, it is.
type imageEvents struct {
	created  int64
	partials uint32            // partial images of each picture at most
	partial  map[uint32]uint32 // how many each had
	files    map[uint32][]byte
}

type imageEvent struct {
	Type              string   `json:"type"`
	B64JSON           string   `json:"b64_json"`
	CreatedAt         int64    `json:"created_at"`
	Background        string   `json:"background"`
	OutputFormat      string   `json:"output_format"`
	Size              string   `json:"size,omitempty"`
	Index             uint32   `json:"index"`
	PartialImageIndex *uint32  `json:"partial_image_index,omitempty"`
	Seed              *uint64  `json:"seed,omitempty"`
	Steps             *uint32  `json:"steps,omitempty"`
	Score             *float32 `json:"score,omitempty"`
}

func (e *imageEvents) begin(string) {}

func (e *imageEvents) translate(event *hanmov1.GenerateStreamResponse, out *eventWriter) error {
	switch {
	case event.GetPreview() != nil:
		preview := event.GetPreview()
		number := e.partial[preview.Index]
		if number >= e.partials {
			return nil
		}
		e.partial[preview.Index]++
		e.send(out, &imageEvent{Type: "image_generation.partial_image", OutputFormat: "jpeg",
			Index: preview.Index, PartialImageIndex: &number}, preview.Data)
	case event.GetPicture() != nil:
		chunk := event.GetPicture()
		e.files[chunk.Index] = append(e.files[chunk.Index], chunk.Data...)
	case event.GetFinal() != nil:
		for _, output := range event.GetFinal().Outputs {
			picture := output.GetPicture()
			e.send(out, &imageEvent{Type: "image_generation.completed",
				OutputFormat: formatName(picture.GetFormat()), Size: sizeOf(picture), Index: output.Index,
				Seed: &picture.Seed, Steps: &picture.Steps, Score: scoreOf(picture)}, e.files[output.Index])
		}
	}
	return nil
}

func (e *imageEvents) send(out *eventWriter, event *imageEvent, file []byte) {
	event.B64JSON = base64.StdEncoding.EncodeToString(file)
	event.CreatedAt, event.Background = e.created, "opaque"
	out.send(event.Type, event)
}
