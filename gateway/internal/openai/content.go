package openai

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"hanmo/hanmov1"
)

// content is a text, or a list of texts and pictures.
type content struct {
	text     string // all of them joined
	pictures [][]byte
}

func (c *content) UnmarshalJSON(data []byte) error {
	*c = content{}
	if json.Unmarshal(data, &c.text) == nil {
		return nil
	}
	var parts []struct {
		Type     string  `json:"type"`
		Text     *string `json:"text"`
		ImageURL *struct {
			URL string `json:"url"`
		} `json:"image_url"`
	}
	if err := json.Unmarshal(data, &parts); err != nil {
		return badField("messages", "content must be a text or a list of texts and pictures")
	}
	var joined strings.Builder
	for _, part := range parts {
		switch {
		case part.Type == "text" && part.Text != nil:
			joined.WriteString(*part.Text)
		case part.Type == "image_url" && part.ImageURL != nil:
			picture, err := fromDataURI(part.ImageURL.URL)
			if err != nil {
				return err
			}
			c.pictures = append(c.pictures, picture)
		default:
			return badField("messages", "content may have parts of type \"text\" and \"image_url\" only")
		}
	}
	c.text = joined.String()
	return nil
}

// Nothing is fetched for a client: a picture comes along as "data:image/png;base64,...".
func fromDataURI(uri string) ([]byte, error) {
	const field = "messages"
	kind, data, found := strings.Cut(uri, ",")
	if !found || !strings.HasPrefix(kind, "data:image/") || !strings.HasSuffix(kind, ";base64") {
		return nil, badField(field, "image_url.url must be \"data:image/png;base64,...\", or so of a JPEG or WebP file")
	}
	picture, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return nil, badField(field, "image_url.url has no valid base64")
	}
	return picture, nil
}

func (b *chatRequest) hasPicture() bool {
	for _, message := range b.Messages {
		if message.Content != nil && len(message.Content.pictures) > 0 {
			return true
		}
	}
	return false
}

// parts are those of a text about a picture. Models that write such texts can't be asked anything.
func (b *chatRequest) parts() (*hanmov1.Parts, error) {
	first := b.Messages[0]
	if len(first.Content.pictures) != 1 || first.Content.text != "" || first.Role != "user" || len(b.Messages) > 2 {
		return nil, badField("messages", "a picture must be the only content of the first message, a user's: "+
			"models that read pictures say what they show and take no question; "+
			"an assistant's message after it says how the answer begins")
	}
	parts := &hanmov1.Parts{Parts: []*hanmov1.Part{{Part: &hanmov1.Part_Picture{
		Picture: &hanmov1.InputPicture{Data: first.Content.pictures[0]}}}}}
	if len(b.Messages) == 1 {
		return parts, nil
	}
	second := b.Messages[1]
	if second.Role != "assistant" || len(second.Content.pictures) > 0 {
		return nil, badField("messages[1]", "must be an assistant's text: how the answer begins")
	}
	parts.Parts = append(parts.Parts, &hanmov1.Part{Part: &hanmov1.Part_Text{Text: second.Content.text}})
	return parts, nil
}
