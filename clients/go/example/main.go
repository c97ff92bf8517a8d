// Lists a server's models, streams a poem and saves a picture.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"hanmo/hanmov1"
)

// gRPC's own retries heed grpc-retry-pushback-ms, and of streams they repeat only those from which
// nothing came. Every address of a headless Service gets its share of the calls.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [{"service": "hanmo.v1.Generation"}, {"service": "hanmo.v1.Models"}],
    "retryPolicy": {
      "maxAttempts": 5,
      "initialBackoff": "0.2s",
      "maxBackoff": "5s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
    }
  }]
}`

func main() {
	log.SetFlags(0)
	server := flag.String("server", "localhost:8001", "where hanmo-server listens")
	writer := flag.String("writer", "wenzhong-gpt2-tiny", "model that writes")
	painter := flag.String("painter", "taiyi-sd-tiny", "model that paints")
	file := flag.String("output", "picture.png", "where the picture goes")
	steps := flag.Uint("steps", 20, "denoising steps")
	timeout := flag.Duration("timeout", 5*time.Minute, "for everything together")
	flag.Parse()

	connection, err := grpc.NewClient(*server,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()

	generation := hanmov1.NewGenerationClient(connection)
	if err := listModels(ctx, hanmov1.NewModelsClient(connection)); err != nil {
		log.Fatal(explain(err))
	}
	if err := streamPoem(ctx, generation, *writer); err != nil {
		log.Fatal(explain(err))
	}
	if err := savePicture(ctx, generation, *painter, uint32(*steps), *file); err != nil {
		log.Fatal(explain(err))
	}
}

func listModels(ctx context.Context, models hanmov1.ModelsClient) error {
	list, err := models.ListModels(ctx, &hanmov1.ListModelsRequest{})
	if err != nil {
		return err
	}
	for _, model := range list.Models {
		fmt.Println(model.Name, model.State, model.Tasks)
	}
	return nil
}

func streamPoem(ctx context.Context, generation hanmov1.GenerationClient, model string) error {
	// Ends the request on the server, too, should this function return early.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := generation.GenerateStream(ctx, &hanmov1.GenerateRequest{
		Model: model,
		Input: &hanmov1.GenerateRequest_Chat{Chat: &hanmov1.Chat{
			Messages: []*hanmov1.ChatMessage{{Role: "user", Content: "写一首关于秋山的五言绝句"}},
		}},
		Parameters: &hanmov1.GenerateRequest_Text{
			Text: &hanmov1.TextParameters{Seed: proto.Uint64(2)},
		},
	})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			fmt.Println()
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Print(message.GetText().GetText()) // nothing for other events
	}
}

func savePicture(ctx context.Context, generation hanmov1.GenerationClient, model string,
	steps uint32, file string) error {
	response, err := generation.Generate(ctx, &hanmov1.GenerateRequest{
		Model: model,
		Input: &hanmov1.GenerateRequest_Prompt{Prompt: "一幅水墨画，远处青山一座，秋天"},
		Parameters: &hanmov1.GenerateRequest_Picture{Picture: &hanmov1.PictureParameters{
			Steps: proto.Uint32(steps), Guidance: proto.Float32(4), Seed: proto.Uint64(7),
		}},
	}, grpc.MaxCallRecvMsgSize(64<<20))
	if err != nil {
		return err
	}
	picture := response.Outputs[0].GetPicture()
	fmt.Printf("%d x %d, %d steps, seed %d: %s\n",
		picture.Width, picture.Height, picture.Steps, picture.Seed, file)
	return os.WriteFile(file, picture.Data, 0o644)
}

// explain adds the fields at fault to an error of the server.
func explain(err error) error {
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range bad.FieldViolations {
				err = fmt.Errorf("%w\n%s: %s", err, violation.Field, violation.Description)
			}
		}
	}
	return err
}
