package actor

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	turns, reasons, effects, faults *prometheus.CounterVec
}

// newMetrics registers the engine's counters; a nil registerer counts without showing.
func newMetrics(r prometheus.Registerer) metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "signalbox_" + name, Help: help}, labels)
		if r != nil {
			r.MustRegister(c)
		}
		return c
	}
	return metrics{
		turns:   counter("turns_total", "Turns by kind of subject and how they ended.", "kind", "end"),
		reasons: counter("decisions_total", "Boxes of the flowchart passed.", "kind", "reason"),
		effects: counter("effects_total", "Attempts at effects by kind of subject, effect and outcome.", "kind", "effect", "code"),
		faults:  counter("faults_total", "Takeovers, lost leases, panics, quarantines, dead letters, newer formats.", "kind", "fault"),
	}
}
