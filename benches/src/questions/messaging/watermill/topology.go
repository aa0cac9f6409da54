package main

import (
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	amqp091 "github.com/rabbitmq/amqp091-go"
)

// The queues are there already.
type asItIs struct{}

func (asItIs) BuildTopology(*amqp091.Channel, amqp.BuildTopologyParams, amqp.Config, watermill.LoggerAdapter) error {
	return nil
}

func (asItIs) ExchangeDeclare(*amqp091.Channel, string, amqp.Config) error { return nil }
