package main

import (
	"fmt"
	"io"
	"os"

	"github.com/mattn/go-isatty"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLog makes the service's logger: JSON lines, "gcp" with the keys that Cloud Logging reads, or a console form for
// people, which is the default on a terminal.
func newLog(w io.Writer, level, format string) (*zap.Logger, error) {
	at, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	if format == "" {
		format = "json"
		if f, ok := w.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
			format = "console"
		}
	}
	c := zap.NewProductionEncoderConfig()
	c.TimeKey, c.EncodeTime, c.EncodeDuration = "time", zapcore.RFC3339NanoTimeEncoder, zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder
	switch format {
	case "console":
		c.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		c.EncodeLevel = zapcore.CapitalColorLevelEncoder
		encoder = zapcore.NewConsoleEncoder
	case "gcp":
		c.LevelKey, c.MessageKey, c.EncodeLevel = "severity", "message", severity
	}
	return zap.New(zapcore.NewCore(encoder(c), zapcore.Lock(zapcore.AddSync(w)), at)), nil
}

// severity writes the levels as Cloud Logging names them.
func severity(l zapcore.Level, enc zapcore.PrimitiveArrayEncoder) {
	name := min(l, zapcore.ErrorLevel).CapitalString()
	if l == zapcore.WarnLevel {
		name = "WARNING"
	}
	enc.AppendString(name)
}
