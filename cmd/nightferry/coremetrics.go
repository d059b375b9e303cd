package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"nightferry/internal/core"
)

// readTimeout bounds a question about metrics, and its answer.
const readTimeout = 30 * time.Second

// listenMetrics opens the metrics address; it is nil where that is off.
func listenMetrics(addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics: %w: change listen.metrics in the configuration, or set it to off", err)
	}
	return l, nil
}

// metricsHandler serves /metrics, /healthz and /readyz.
func (d *daemon) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newCoreCollector(d.core.Metrics))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		h := d.core.Health(r.Context())
		writeHealth(w, h.Live, h)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		h := d.core.Health(r.Context())
		writeHealth(w, h.Live && h.Ready, h)
	})
	return mux
}

func writeHealth(w http.ResponseWriter, ok bool, h core.Health) {
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(h) // a prober that has gone learns nothing
}

// coreCollector turns a snapshot into metrics, whenever it is asked.
type coreCollector struct {
	snapshot func() core.Metrics
	one      []coreMetric
	many     []coreVector
}

// coreMetric is one number of a snapshot.
type coreMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	get  func(*core.Metrics) float64
}

// coreVector is a number per value of one label.
type coreVector struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	get  func(*core.Metrics, func(label string, v float64))
}

func newCoreCollector(snapshot func() core.Metrics) *coreCollector {
	c := &coreCollector{snapshot: snapshot}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("nightferry_"+name, help, labels, nil)
	}
	gauge := func(name, help string, get func(*core.Metrics) float64) {
		c.one = append(c.one, coreMetric{desc(name, help), prometheus.GaugeValue, get})
	}
	counter := func(name, help string, get func(*core.Metrics) float64) {
		c.one = append(c.one, coreMetric{desc(name, help), prometheus.CounterValue, get})
	}
	gauge("connections", "Connections of the bus, the Core's own too.", func(m *core.Metrics) float64 { return float64(m.Connections) })
	gauge("sites", "Sites in the configuration.", func(m *core.Metrics) float64 { return float64(m.Sites) })
	gauge("sites_enrolled", "Sites that have joined.", func(m *core.Metrics) float64 { return float64(m.Enrolled) })
	gauge("sites_connected", "Sites that were heard lately.", func(m *core.Metrics) float64 { return float64(m.Connected) })
	gauge("runs_open", "Runs under way.", func(m *core.Metrics) float64 { return float64(m.RunsOpen) })
	counter("events_committed_total", "Events of sites that are in the ledger.", func(m *core.Metrics) float64 { return float64(m.Events) })
	counter("outcomes_committed_total", "Outcomes of files that are in the ledger.", func(m *core.Metrics) float64 { return float64(m.Outcomes) })
	counter("commits_total", "Batches of sites that were committed.", func(m *core.Metrics) float64 { return float64(m.Commits) })
	counter("commit_seconds_total", "Time spent in commits.", func(m *core.Metrics) float64 { return m.CommitTime.Seconds() })
	counter("urls_lent_total", "URLs lent to sites.", func(m *core.Metrics) float64 { return float64(m.URLs) })
	counter("states_sent_total", "States sent to sites.", func(m *core.Metrics) float64 { return float64(m.StatesSent) })
	counter("logs_rendered_total", "Log files written.", func(m *core.Metrics) float64 { return float64(m.Rendered) })
	gauge("logs_waiting", "Runs that ended and have no log file yet.", func(m *core.Metrics) float64 { return float64(m.RenderBacklog) })
	gauge("store_clock_offset_seconds", "The store's clock minus the Core's.", func(m *core.Metrics) float64 { return m.StoreOffset.Seconds() })
	gauge("ledger_full", "1 while the ledger's disk is full.", func(m *core.Metrics) float64 {
		if m.LedgerFull {
			return 1
		}
		return 0
	})
	gauge("certificate_expires_timestamp_seconds", "When the bus's certificate expires.", func(m *core.Metrics) float64 {
		if m.CertExpires.IsZero() {
			return 0
		}
		return float64(m.CertExpires.Unix())
	})
	c.many = []coreVector{
		{desc("incidents_open", "Open incidents.", "kind"), prometheus.GaugeValue, func(m *core.Metrics, say func(string, float64)) {
			for k, n := range m.Incidents {
				say(k, float64(n))
			}
		}},
		{desc("messages_total", "Messages from sites.", "verb"), prometheus.CounterValue, func(m *core.Metrics, say func(string, float64)) {
			for k, n := range m.Messages {
				say(k, float64(n))
			}
		}},
		{desc("refusals_total", "Requests of sites that the Core refused.", "code"), prometheus.CounterValue, func(m *core.Metrics, say func(string, float64)) {
			for k, n := range m.Refusals {
				say(k, float64(n))
			}
		}},
		{desc("release", "Number of a channel's newest release.", "channel"), prometheus.GaugeValue, func(m *core.Metrics, say func(string, float64)) {
			for k, n := range m.Releases {
				say(k, float64(n))
			}
		}},
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *coreCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, x := range c.one {
		ch <- x.desc
	}
	for _, x := range c.many {
		ch <- x.desc
	}
}

// Collect implements prometheus.Collector.
func (c *coreCollector) Collect(ch chan<- prometheus.Metric) {
	m := c.snapshot()
	for _, x := range c.one {
		ch <- prometheus.MustNewConstMetric(x.desc, x.kind, x.get(&m))
	}
	for _, x := range c.many {
		x.get(&m, func(label string, v float64) { ch <- prometheus.MustNewConstMetric(x.desc, x.kind, v, label) })
	}
}
