package main

import (
	sweeps "github.com/signalbox-ci/signalbox/repair" // repair is an operator's word here
	"github.com/signalbox-ci/signalbox/state"
)

// sweep is what the repair needs of the rest.
func (w wiring) sweep(st store) sweeps.Config {
	return sweeps.Config{
		Forge: func(instance string) (sweeps.Forge, error) {
			c, err := w.client(instance)
			if err != nil {
				return sweeps.Forge{}, err
			}
			f := sweeps.Forge{Lister: c, Log: c, Handles: c.hook.Handles}
			f.Named, f.Wild = w.cfg.named(instance)
			return f, nil
		},
		Allowed: w.cfg.Allowed, Store: st, Tell: w.engine.Tell,
		Every: w.cfg.Sweep, Pace: sweeps.Unhurried(), Adopt: w.cfg.Adopt, DryRun: w.cfg.DryRun,
	}
}

// named are the repositories of the allow-list that one entry names in full, and whether there are other entries.
func (c Config) named(instance string) (names []string, wild bool) {
	for _, p := range c.repos {
		switch {
		case p.instance != "" && p.instance != instance:
		case p.prefix:
			wild = true
		default:
			names = append(names, p.name)
		}
	}
	return names, wild
}

// sweeper is the subject that sweeps a forge by itself, once it was woken.
func sweeper(f Forge) state.Subject {
	if f.Token.Set() {
		return sweeps.Subject(f.Name, sweeps.Token)
	}
	return sweeps.Subject(f.Name, sweeps.Root)
}
