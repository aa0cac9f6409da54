package main

import (
	"log"
	"strings"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	driver "github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"
)

const group = "members"

// Quorum queues, confirms awaited.
func rabbit(url string) amqp.Config {
	config := amqp.NewDurableQueueConfig(url)
	config.Publish.ConfirmDelivery = true
	config.Queue.Arguments = map[string]any{"x-queue-type": "quorum"}
	return config
}

func brokers(url string) []string {
	return []string{strings.TrimPrefix(url, "kafka://")}
}

func byKey(_ string, one *message.Message) (string, error) {
	return one.Metadata.Get("key"), nil
}

var jetStream = nats.JetStreamConfig{
	AutoProvision:    true,
	DurablePrefix:    group,
	SubscribeOptions: []driver.SubOpt{driver.DeliverAll(), driver.AckExplicit()},
}

// As its example on JetStream does.
var reconnecting = []driver.Option{driver.RetryOnFailedConnect(true)}

func newPublisher(system string, url string, logger watermill.LoggerAdapter) message.Publisher {
	switch system {
	case "rabbitmq":
		return must(amqp.NewPublisher(rabbit(url), logger))
	case "kafka":
		marshaler := kafka.NewWithPartitioningMarshaler(byKey)
		return must(kafka.NewPublisher(kafka.PublisherConfig{Brokers: brokers(url), Marshaler: marshaler}, logger))
	case "redis":
		client := redis.NewClient(must(redis.ParseURL(url)))
		return must(redisstream.NewPublisher(redisstream.PublisherConfig{Client: client}, logger))
	case "nats":
		return must(nats.NewPublisher(nats.PublisherConfig{
			URL: url, NatsOptions: reconnecting, JetStream: jetStream, Marshaler: &nats.NATSMarshaler{},
		}, logger))
	}
	log.Fatal("no system ", system)
	return nil
}

func newSubscriber(system string, url string, number string, logger watermill.LoggerAdapter) message.Subscriber {
	switch system {
	case "rabbitmq":
		return must(amqp.NewSubscriber(rabbit(url), logger))
	case "kafka":
		saramaConfig := kafka.DefaultSaramaSubscriberConfig()
		saramaConfig.Consumer.Offsets.Initial = -2
		return must(kafka.NewSubscriber(kafka.SubscriberConfig{
			Brokers: brokers(url), Unmarshaler: kafka.DefaultMarshaler{}, ConsumerGroup: group,
			OverwriteSaramaConfig: saramaConfig,
		}, logger))
	case "redis":
		client := redis.NewClient(must(redis.ParseURL(url)))
		return must(redisstream.NewSubscriber(redisstream.SubscriberConfig{
			Client: client, ConsumerGroup: group, Consumer: number,
		}, logger))
	case "nats":
		return must(nats.NewSubscriber(nats.SubscriberConfig{
			URL: url, NatsOptions: reconnecting, QueueGroupPrefix: group, JetStream: jetStream,
			Unmarshaler: &nats.NATSMarshaler{},
		}, logger))
	}
	log.Fatal("no system ", system)
	return nil
}
