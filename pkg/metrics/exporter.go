package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of one connection, of scrapes at once and of the exporter's end.
const (
	readTimeout    = 5 * time.Second
	writeTimeout   = 15 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 8 << 10
	maxScrapes     = 4
	stopTimeout    = 3 * time.Second
)

// Exporter serves /metrics and /healthz.
type Exporter struct {
	listener net.Listener
	http     http.Server
}

// Listen takes the address, so that a daemon which cannot be watched does not start.
// Run or Close gives it back.
func Listen(cfg Config, sources Sources) (*Exporter, error) {
	handler, err := Handler(sources)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("metrics.address %s: %w; give an address of this host, or \"\" for none", cfg.Address, err)
	}
	log := sources.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Exporter{listener: listener, http: http.Server{
		Handler:        handler,
		ReadTimeout:    readTimeout,
		WriteTimeout:   writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}}, nil
}

// Addr is where the exporter listens.
func (x *Exporter) Addr() net.Addr { return x.listener.Addr() }

// Run serves until ctx is done and then returns nil.
func (x *Exporter) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- x.http.Serve(x.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", x.listener.Addr(), errors.Join(err, x.Close()))
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := x.http.Shutdown(patience)
	if err != nil {
		err = x.Close()
	}
	<-failed
	return err
}

// Close ends an exporter that does not run, at once; it may be called again.
func (x *Exporter) Close() error {
	if err := errors.Join(x.http.Close(), x.listener.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close metrics: %w", err)
	}
	return nil
}

// Handler serves /metrics, with those of the Go runtime and the process, and /healthz:
// 200 while new calls are taken, 503 while draining.
func Handler(sources Sources) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		New(sources), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		// Half of the metrics are better than none.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if sources.Draining != nil && sources.Draining() {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "running\n")
	})
	return mux, nil
}
