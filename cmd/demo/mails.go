package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// letter is an e-mail in a file.
type letter struct {
	name, subject, text string
}

// letters reads the e-mails sent so far.
func (n *night) letters() (out []letter, err error) {
	entries, err := os.ReadDir(n.mails)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".eml" {
			continue // still being written
		}
		l, rerr := readLetter(filepath.Join(n.mails, e.Name()))
		if rerr != nil {
			return nil, rerr
		}
		out = append(out, l)
	}
	return out, err
}

func readLetter(name string) (l letter, err error) {
	f, err := os.Open(name)
	if err != nil {
		return l, err
	}
	defer f.Close()
	m, err := netmail.ReadMessage(f)
	if err != nil {
		return l, fmt.Errorf("read the mail %s: %w", name, err)
	}
	l.name = filepath.Base(name)
	if l.subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		return l, err
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		return l, err
	}
	part, err := multipart.NewReader(m.Body, params["boundary"]).NextRawPart()
	if err != nil {
		return l, err
	}
	var r io.Reader = part
	if strings.EqualFold(part.Header.Get("Content-Transfer-Encoding"), "quoted-printable") {
		r = quotedprintable.NewReader(part)
	}
	b, err := io.ReadAll(r)
	l.text = strings.ReplaceAll(string(b), "\r\n", "\n")
	return l, err
}

// show prints the text of an e-mail.
func (n *night) show(l letter) {
	n.f.d.say("\n  %s\n  Subject: %s", l.name, l.subject)
	for line := range strings.Lines(l.text) {
		n.f.d.say("  | %s", strings.TrimRight(line, "\n"))
	}
	n.f.d.say("")
}

// mailed lists the e-mails of the night.
func (n *night) mailed() error {
	all, err := n.letters()
	if err != nil {
		return err
	}
	n.f.d.say("  All mails of the night:")
	for _, l := range all {
		n.f.d.say("  - %s", strings.TrimPrefix(l.subject, "[nightferry] "))
	}
	return nil
}

// morning waits for each region's daily report.
func (n *night) morning(ctx context.Context) error {
	r := n.regions[len(n.regions)-1]
	end := r.first.End
	at := time.Date(end.Year(), end.Month(), end.Day(), 5, 30, 0, 0, r.place.Zone)
	reports := map[string]letter{}
	err := n.wait(ctx, at, "the morning's reports", func() (bool, error) {
		all, err := n.letters()
		for _, l := range all {
			for _, r := range n.regions {
				if strings.HasPrefix(l.name, "report-"+r.name+"-"+r.first.Start.Add(12*time.Hour).Format(time.DateOnly)) {
					reports[r.name] = l
				}
			}
		}
		return len(reports) == len(n.regions), err
	})
	if err != nil {
		return err
	}
	n.say("morning: a report for each region, by mail; this is Asia's")
	n.show(reports[n.regions[0].name])
	if err := n.mailed(); err != nil {
		return err
	}
	good := 0
	for _, l := range reports {
		if strings.Contains(l.subject, "2 of 2 verified, 0 missed") {
			good++
		}
	}
	asia, told := n.regions[0], 0
	for _, s := range asia.sites {
		runs, err := n.runs(ctx, s)
		if err != nil {
			return err
		}
		var fetched int64
		for _, x := range runs {
			fetched += x.Totals.Fetched
		}
		row := fmt.Sprintf("%.3g MB", float64(fetched)/1e6)
		for line := range strings.Lines(reports[asia.name].text) {
			if strings.HasPrefix(line, s+" ") && strings.Contains(line, " "+row+" ") {
				told++
			}
		}
	}
	n.holds(told == len(asia.sites), "the report has the runs' numbers", "%d of %d sites, as in nightferry runs", told, len(asia.sites))
	n.holds(good == len(n.regions), "each region's morning report", "%d of %d say 2 of 2 verified, 0 missed", good, len(n.regions))
	return nil
}
