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
	metrics.MustRegister(alertGauges(context.WithoutCancel(ctx), st))
	return wake(ctx, e, alerts.Subject(), alerts.Seed)
}

// scrapeWait bounds the one read of the store that a scrape costs.
const scrapeWait = 2 * time.Second

// alertGauges read the list of alerts from the store at each scrape, so that every instance gives the same answer.
// Where it cannot be read they are absent.
func alertGauges(base context.Context, r reader) prometheus.CollectorFunc {
	standing := prometheus.NewDesc("signalbox_alert", "1 while the alert stands, else 0; the same on every instance.", []string{"alert"}, nil)
	judged := prometheus.NewDesc("signalbox_alerts_judged_timestamp_seconds", "When the alerts were last judged, by any instance.", nil, nil)
	return func(ch chan<- prometheus.Metric) {
		ctx, cancel := context.WithTimeout(base, scrapeWait)
		defer cancel()
		d, err := alerts.Read(ctx, r)
		if err != nil || d.Judged.IsZero() {
			return
		}
		stands := map[string]float64{}
		for _, a := range d.Standing {
			stands[a.Name] = 1
		}
		for _, name := range alerts.Names() {
			ch <- prometheus.MustNewConstMetric(standing, prometheus.GaugeValue, stands[name], name)
		}
		ch <- prometheus.MustNewConstMetric(judged, prometheus.GaugeValue, float64(d.Judged.UnixMilli())/1000)
	}
}
