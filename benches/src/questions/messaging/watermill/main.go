// Watermill as its documentation says: a publisher that waits for confirms, and a subscriber whose messages are
// acknowledged one by one. A job as JSON on standard input, what it took on standard output.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	driver "github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"
)

type job struct {
	System        string `json:"system"`
	URL           string `json:"url"`
	Queue         string `json:"queue"`
	Address       string `json:"address"`
	Single        string `json:"single"`
	SingleAddress string `json:"single_address"`
	Messages      int    `json:"messages"`
	Singles       int    `json:"singles"`
	UnderWay      int    `json:"under_way"`
	Text          int    `json:"text"`
}

type sample struct {
	Publish   float64 `json:"publish"`
	Consume   float64 `json:"consume"`
	RoundTrip float64 `json:"round_trip"`
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func (j job) open() (message.Publisher, message.Subscriber) {
	logger := watermill.NopLogger{}
	switch j.System {
	case "rabbitmq":
		config := amqp.NewDurableQueueConfig(j.URL)
		config.Publish.ConfirmDelivery = true
		config.Publish.ChannelPoolSize = 64
		config.Publish.Mandatory = true
		config.Consume.Qos.PrefetchCount = j.UnderWay
		config.Queue.Arguments = map[string]any{"x-queue-type": "quorum"}
		config.TopologyBuilder = asItIs{}
		return must(amqp.NewPublisher(config, logger)), must(amqp.NewSubscriber(config, logger))
	case "kafka":
		brokers := []string{strings.TrimPrefix(j.URL, "kafka://")}
		saramaConfig := kafka.DefaultSaramaSubscriberConfig()
		saramaConfig.Consumer.Offsets.Initial = -2
		// Its own default asks for the word of the leader alone.
		acksOfAll := kafka.DefaultSaramaSyncPublisherConfig()
		acksOfAll.Producer.RequiredAcks = -1
		publisher := kafka.PublisherConfig{
			Brokers: brokers, Marshaler: kafka.DefaultMarshaler{}, OverwriteSaramaConfig: acksOfAll,
		}
		subscriber := kafka.SubscriberConfig{
			Brokers: brokers, Unmarshaler: kafka.DefaultMarshaler{}, ConsumerGroup: "watermill." + j.Queue,
			OverwriteSaramaConfig: saramaConfig,
		}
		return must(kafka.NewPublisher(publisher, logger)), must(kafka.NewSubscriber(subscriber, logger))
	case "redis":
		client := redis.NewClient(must(redis.ParseURL(j.URL)))
		publisher := redisstream.PublisherConfig{Client: client}
		subscriber := redisstream.SubscriberConfig{Client: client, ConsumerGroup: "watermill", OldestId: "0"}
		return must(redisstream.NewPublisher(publisher, logger)), must(redisstream.NewSubscriber(subscriber, logger))
	case "nats":
		stream := nats.JetStreamConfig{
			DurablePrefix:    "watermill",
			SubscribeOptions: []driver.SubOpt{driver.DeliverAll(), driver.AckExplicit(), driver.MaxAckPending(4 * j.UnderWay)},
		}
		publisher := nats.PublisherConfig{URL: j.URL, JetStream: stream, Marshaler: &nats.NATSMarshaler{}}
		subscriber := nats.SubscriberConfig{
			URL: j.URL, JetStream: stream, Unmarshaler: &nats.NATSMarshaler{}, AckWaitTimeout: 30 * time.Second,
		}
		return must(nats.NewPublisher(publisher, logger)), must(nats.NewSubscriber(subscriber, logger))
	}
	log.Fatal("no system ", j.System)
	return nil, nil
}

func (j job) order(id int) *message.Message {
	order := map[string]any{"id": id, "text": strings.Repeat("x", j.Text)}
	return message.NewMessage(watermill.NewUUID(), must(json.Marshal(order)))
}

func (j job) publishAll(publisher message.Publisher) float64 {
	var group sync.WaitGroup
	ids := make(chan int)
	began := time.Now()
	for range j.UnderWay {
		group.Add(1)
		go func() {
			defer group.Done()
			for id := range ids {
				if err := publisher.Publish(j.Address, j.order(id)); err != nil {
					log.Fatal(err)
				}
			}
		}()
	}
	for id := range j.Messages {
		ids <- id
	}
	close(ids)
	group.Wait()
	return float64(j.Messages) / time.Since(began).Seconds()
}

func main() {
	var j job
	if err := json.NewDecoder(os.Stdin).Decode(&j); err != nil {
		log.Fatal(err)
	}
	var s sample
	publisher, subscriber := j.open()
	s.Publish = j.publishAll(publisher)

	messages := must(subscriber.Subscribe(context.Background(), j.Address))
	var began time.Time
	for handled := range j.Messages {
		one := <-messages
		if handled == 0 {
			began = time.Now()
		}
		one.Ack()
	}
	s.Consume = float64(j.Messages) / time.Since(began).Seconds()

	answers := must(subscriber.Subscribe(context.Background(), j.SingleAddress))
	var spans []float64
	for id := range j.Singles + 1 {
		time.Sleep(time.Millisecond)
		began := time.Now()
		if err := publisher.Publish(j.SingleAddress, j.order(id)); err != nil {
			log.Fatal(err)
		}
		one := <-answers
		spans = append(spans, float64(time.Since(began).Microseconds()))
		one.Ack()
	}
	// The first waited for the subscription.
	spans = spans[1:]
	sort.Float64s(spans)
	s.RoundTrip = spans[len(spans)/2]
	fmt.Println(string(must(json.Marshal(s))))
}
