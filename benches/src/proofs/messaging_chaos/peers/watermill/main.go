// Watermill as its documentation says: a publisher that waits for confirms, and a subscriber whose messages are
// acknowledged one by one. What it is told and says: programs.rs.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

type numbered struct {
	Key int `json:"key"`
	Seq int `json:"seq"`
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

var speaking sync.Mutex

func say(format string, values ...any) {
	speaking.Lock()
	defer speaking.Unlock()
	fmt.Printf(format+"\n", values...)
}

func publish(publisher message.Publisher, topic string) {
	say("ready")
	var group sync.WaitGroup
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var n numbered
		must(fmt.Sscan(lines.Text(), &n.Key, &n.Seq))
		group.Add(1)
		go func() {
			defer group.Done()
			one := message.NewMessage(watermill.NewUUID(), must(json.Marshal(n)))
			one.Metadata.Set("key", strconv.Itoa(n.Key))
			if err := publisher.Publish(topic, one); err != nil {
				log.Print(err)
				say("failed %d %d", n.Key, n.Seq)
			} else {
				say("ok %d %d", n.Key, n.Seq)
			}
		}()
	}
	group.Wait()
	must(0, publisher.Close())
}

func consume(subscriber message.Subscriber, topic string, handled string, number string) {
	file := must(os.OpenFile(handled, os.O_WRONLY|os.O_APPEND, 0))
	messages := must(subscriber.Subscribe(context.Background(), topic))
	say("ready")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for one := range messages {
			var n numbered
			if err := json.Unmarshal(one.Payload, &n); err != nil {
				log.Fatal(err)
			}
			must(fmt.Fprintf(file, "%s %d %d\n", number, n.Key, n.Seq))
			one.Ack()
		}
	}()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		must(io.Copy(io.Discard, os.Stdin))
	}()
	select {
	case <-gone:
		must(0, subscriber.Close())
		<-done
	case <-done:
		log.Fatal("the subscription ended")
	}
}

func main() {
	role, system, url, topic := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	handled, number := os.Args[5], os.Args[6]
	logger := watermill.NewStdLoggerWithOut(os.Stderr, false, false)
	if role == "publisher" {
		publish(newPublisher(system, url, logger), topic)
	} else {
		consume(newSubscriber(system, url, number, logger), topic, handled, number)
	}
}
