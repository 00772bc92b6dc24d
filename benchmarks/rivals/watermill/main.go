// Forwarder is watermill's own forwarder between watermill-sql's MySQL subscriber and
// watermill-kafka's publisher, with nothing of ours in its path.
//
// It makes its tables at the start, writes "running" to standard error and forwards until SIGTERM.
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	_ "github.com/go-sql-driver/mysql"
)

type settings struct {
	dsn, broker, topic string
	batch              int
	poll               time.Duration
}

func main() {
	var s settings
	flag.StringVar(&s.dsn, "dsn", "", "the database")
	flag.StringVar(&s.broker, "broker", "", "the first broker, host:port")
	flag.StringVar(&s.topic, "topic", "events", "the forwarder's topic, part of its tables' names")
	flag.IntVar(&s.batch, "batch", 0, "SubscribeBatchSize; 0 is watermill-sql's own")
	flag.DurationVar(&s.poll, "poll", 0, "PollInterval; 0 is watermill-sql's own")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(s settings) error {
	logger := watermill.NewSlogLogger(
		slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	)
	db, err := sql.Open("mysql", s.dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	from, err := wsql.NewSubscriber(db, wsql.SubscriberConfig{
		SchemaAdapter:    wsql.DefaultMySQLSchema{SubscribeBatchSize: s.batch},
		OffsetsAdapter:   wsql.DefaultMySQLOffsetsAdapter{},
		PollInterval:     s.poll,
		InitializeSchema: true,
	}, logger)
	if err != nil {
		return err
	}
	to, err := publisher(s.broker, logger)
	if err != nil {
		return err
	}
	defer to.Close()
	forward, err := forwarder.NewForwarder(from, to, logger, forwarder.Config{ForwarderTopic: s.topic})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-forward.Running()
		fmt.Fprintln(os.Stderr, "running")
	}()
	return forward.Run(ctx)
}

// publisher has watermill-kafka's own settings but for the acks, which are the other relays'.
func publisher(broker string, logger watermill.LoggerAdapter) (message.Publisher, error) {
	config := kafka.DefaultSaramaSyncPublisherConfig()
	config.Producer.RequiredAcks = sarama.WaitForAll
	return kafka.NewPublisher(kafka.PublisherConfig{
		Brokers: []string{broker},
		Marshaler: kafka.NewWithPartitioningMarshaler(
			func(_ string, msg *message.Message) (string, error) { return msg.Metadata.Get("key"), nil },
		),
		OverwriteSaramaConfig: config,
	}, logger)
}
