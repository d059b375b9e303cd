package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"nightferry/internal/bucket"
)

// The structure of the file. Every key is also in the schema and in
// docs/config.md; tests compare the three. A nil pointer means that the key
// is missing.

type file struct {
	Version       int64               `yaml:"version"`
	Store         *string             `yaml:"store"`
	Data          *string             `yaml:"data"`
	LogFolder     *string             `yaml:"log_folder"`
	MasterKeyFile *string             `yaml:"master_key_file"`
	Public        []string            `yaml:"public"`
	Listen        listenFile          `yaml:"listen"`
	NATS          *natsFile           `yaml:"nats"`
	Retention     retentionFile       `yaml:"retention"`
	Prices        pricesFile          `yaml:"prices"`
	Alerts        alertsFile          `yaml:"alerts"`
	SignIn        *signInFile         `yaml:"signin"`
	Channels      map[string]channel  `yaml:"channels"`
	Defaults      levelFile           `yaml:"defaults"`
	Regions       map[string]region   `yaml:"regions"`
	Domains       map[string]domain   `yaml:"domains"`
	Sites         map[string]siteFile `yaml:"sites"`
}

type listenFile struct {
	Control   *string      `yaml:"control"`
	WebSocket *string      `yaml:"websocket"`
	Metrics   *string      `yaml:"metrics"`
	Console   *consoleFile `yaml:"console"`
}

type consoleFile struct {
	Address         *string `yaml:"address"`
	URL             *string `yaml:"url"`
	CertificateFile *string `yaml:"certificate_file"`
	KeyFile         *string `yaml:"key_file"`
}

type signInFile struct {
	Issuer   *string     `yaml:"issuer"`
	ClientID *string     `yaml:"client_id"`
	CAFile   *string     `yaml:"ca_file"`
	Claim    *string     `yaml:"claim"`
	Roles    []grantFile `yaml:"roles"`
}

type grantFile struct {
	Value  *string `yaml:"value"`
	Role   *string `yaml:"role"`
	Domain *string `yaml:"domain"`
	Region *string `yaml:"region"`
}

func (c *consoleFile) setShort(text string) { c.Address = &text }

type natsFile struct {
	URLs            []string `yaml:"urls"`
	CredentialsFile *string  `yaml:"credentials_file"`
	CAFile          *string  `yaml:"ca_file"`
}

type retentionFile struct {
	Logs *duration `yaml:"logs"`
	Runs *duration `yaml:"runs"`
}

type pricesFile struct {
	GB               *float64 `yaml:"gb"`
	ThousandRequests *float64 `yaml:"thousand_requests"`
	Currency         *string  `yaml:"currency"`
}

type channel struct {
	Source            *string   `yaml:"source"`
	Include           []string  `yaml:"include"`
	Exclude           []string  `yaml:"exclude"`
	Links             *string   `yaml:"links"`
	MaxDelete         *percent  `yaml:"max_delete"`
	MaxDeleteFiles    *int64    `yaml:"max_delete_files"`
	UnportableNames   *string   `yaml:"unportable_names"`
	Keep              *int64    `yaml:"keep"`
	KeepWithin        *duration `yaml:"keep_within"`
	Locked            *string   `yaml:"locked"`
	Prune             *bool     `yaml:"prune"`
	IgnoreInode       *bool     `yaml:"ignore_inode"`
	SourceIgnoreInode *bool     `yaml:"source_ignore_inode"`
	Ignore            []string  `yaml:"ignore"`
	LogUnchanged      *bool     `yaml:"log_unchanged"`
	Windows           *rule     `yaml:"windows"`
	Cadence           *cadence  `yaml:"cadence"`
	Priority          *int64    `yaml:"priority"`
	Scrub             *period   `yaml:"scrub"`
	ScrubRate         *rate     `yaml:"scrub_rate"`
	Repair            *bool     `yaml:"repair"`
	MeasureRate       *rate     `yaml:"measure_rate"`
}

// levelFile holds the keys that the fleet, a region, a domain and a site can
// set.
type levelFile struct {
	Targets     map[string]target `yaml:"targets"`
	Rate        *pace             `yaml:"rate"`
	Windows     *rule             `yaml:"windows"`
	Locked      *string           `yaml:"locked"`
	Prune       *bool             `yaml:"prune"`
	IgnoreInode *bool             `yaml:"ignore_inode"`
	Repair      *bool             `yaml:"repair"`
}

type target struct {
	Folder      *string `yaml:"folder"`
	Rate        *rate   `yaml:"rate"`
	Windows     *rule   `yaml:"windows"`
	Locked      *string `yaml:"locked"`
	Prune       *bool   `yaml:"prune"`
	IgnoreInode *bool   `yaml:"ignore_inode"`
	Repair      *bool   `yaml:"repair"`
}

func (t *target) setShort(text string) { t.Folder = &text }

type region struct {
	levelFile
}

type domain struct {
	LogReaders *string `yaml:"log_readers"`
	levelFile
}

type siteFile struct {
	Domain *string   `yaml:"domain"`
	Region *string   `yaml:"region"`
	Zone   *string   `yaml:"zone"`
	At     []float64 `yaml:"at"`
	levelFile
}

// rate is bytes per second.
type rate int64

func (r *rate) parseText(text string) error {
	if text == "unlimited" {
		*r = 0
		return nil
	}
	n, err := bucket.ParseRate(text)
	*r = rate(n)
	return err
}

// duration is written with one unit: 30d, 2w, 36h or 90m.
type duration time.Duration

func (d *duration) parseText(text string) error {
	bad := fmt.Errorf("%s: want a number and a unit, such as 90d, 2w, 36h or 30m", quoteShort(text))
	if text == "" {
		return bad
	}
	unit, ok := map[byte]time.Duration{'m': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}[text[len(text)-1]]
	number := text[:len(text)-1]
	if !ok || !isDecimal(number) {
		return bad
	}
	n, err := strconv.ParseFloat(number, 64)
	if v := n * float64(unit); err != nil || v < 0 || v > float64(100*365*24*time.Hour) {
		return bad
	}
	*d = duration(n * float64(unit))
	return nil
}

// period is an interval: never, daily, weekly, monthly, or a duration.
type period time.Duration

func (p *period) parseText(text string) error {
	day := 24 * time.Hour
	for _, w := range []struct {
		word string
		is   time.Duration
	}{{"never", 0}, {"daily", day}, {"weekly", 7 * day}, {"monthly", 30 * day}} {
		if text == w.word {
			*p = period(w.is)
			return nil
		}
	}
	var d duration
	if d.parseText(text) != nil || time.Duration(d) < time.Hour {
		return fmt.Errorf("%s: want never, daily, weekly, monthly, or at least an hour such as 14d", quoteShort(text))
	}
	*p = period(d)
	return nil
}

// percent is written with its sign: 25%.
type percent float64

func (p *percent) parseText(text string) error {
	number, ok := strings.CutSuffix(text, "%")
	n, err := strconv.ParseFloat(number, 64)
	if !ok || !isDecimal(number) || err != nil || n <= 0 || n > 100 {
		return fmt.Errorf("%s: want a percentage above 0%% and at most 100%%, such as 25%%", quoteShort(text))
	}
	*p = percent(n)
	return nil
}
