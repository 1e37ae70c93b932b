package webhook

import (
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// Timeouts of a server that faces the internet. Together they bound how long a sender who says little holds a goroutine.
const (
	ReadHeaderTimeout = 10 * time.Second
	// ReadTimeout is for a whole request: 25 MiB on a link of 3.5 Mbit/s. It also ends the context of a handler that
	// still runs then, so no handler of this server may take longer.
	ReadTimeout = 60 * time.Second
	// WriteTimeout runs from the end of the headers and must outlast ReadTimeout and the slowest handler
	// (POST /internal/sweep works for 50 s).
	WriteTimeout   = 75 * time.Second
	IdleTimeout    = 120 * time.Second
	MaxHeaderBytes = 32 << 10
)

// NewServer is a http.Server with these limits, whose own complaints (a handler that panicked) go to log as warnings.
// The caller sets Addr or serves a listener, and shuts it down.
func NewServer(handler http.Handler, log *zap.Logger) (*http.Server, error) {
	errorLog, err := zap.NewStdLogAt(log, zap.WarnLevel)
	if err != nil {
		return nil, fmt.Errorf("log for net/http: %w", err)
	}
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: ReadHeaderTimeout,
		ReadTimeout:       ReadTimeout,
		WriteTimeout:      WriteTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		ErrorLog:          errorLog,
	}, nil
}
