package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/alerts"
	"github.com/signalbox-ci/signalbox/forge/httptrigger"
	"github.com/signalbox-ci/signalbox/status"
)

// watch lets the engine judge the alerts, and shows them on the metrics of this instance.
func watch(ctx context.Context, cfg Config, e *actor.Engine, st store, log *zap.Logger, metrics prometheus.Registerer) error {
	c := alerts.Config{Store: st, Log: log, Waiting: cfg.AlertWait}
	if cfg.AlertURL != "" {
		receiver, err := httptrigger.New(cfg.AlertSecret.Reveal(), cfg.HTTPPrivate)
		if err != nil {
			return fmt.Errorf("alerts: %w", err)
		}
		c.Post = func(ctx context.Context, id string, body []byte) actor.Outcome {
			if err := receiver.Post(ctx, "tell of an alert", cfg.AlertURL, id, body); err != nil {
				return status.Outcome(err)
			}
			return actor.Outcome{Code: actor.Done}
		}
	}
	actor.Register(e, alerts.Kind, alerts.New(c), actor.KindOptions{Clockwork: true})
	metrics.MustRegister(newAlertGauges(context.WithoutCancel(ctx), st))
	return wake(ctx, e, alerts.Subject(), alerts.Seed)
}

// scrapeWait bounds the one read of the store that a scrape costs.
const scrapeWait = 2 * time.Second

// alertGauges read the list of alerts from the store at each scrape, so that every instance gives the same answer.
// Where it cannot be read they are absent.
type alertGauges struct {
	base             context.Context //nolint:containedctx // a Collector is not given one
	store            reader
	standing, judged *prometheus.Desc
}

var _ prometheus.Collector = alertGauges{}

func newAlertGauges(base context.Context, r reader) alertGauges {
	return alertGauges{
		base: base, store: r,
		standing: prometheus.NewDesc("signalbox_alert", "1 while the alert stands, else 0; the same on every instance.", []string{"alert"}, nil),
		judged:   prometheus.NewDesc("signalbox_alerts_judged_timestamp_seconds", "When the alerts were last judged, by any instance.", nil, nil),
	}
}

// Describe names the gauges.
func (g alertGauges) Describe(ch chan<- *prometheus.Desc) { ch <- g.standing; ch <- g.judged }

// Collect reads them.
func (g alertGauges) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(g.base, scrapeWait)
	defer cancel()
	d, err := alerts.Read(ctx, g.store)
	if err != nil || d.Judged.IsZero() {
		return
	}
	stands := map[string]float64{}
	for _, a := range d.Standing {
		stands[a.Name] = 1
	}
	for _, name := range alerts.Names() {
		ch <- prometheus.MustNewConstMetric(g.standing, prometheus.GaugeValue, stands[name], name)
	}
	ch <- prometheus.MustNewConstMetric(g.judged, prometheus.GaugeValue, float64(d.Judged.UnixMilli())/1000)
}
