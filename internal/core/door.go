package core

import (
	"errors"
)

// Door is what a TCP door for the Core's clients needs of the Core.
type Door struct {
	storage *storage
	notices *notices
	clock   *clocks
}

// errNoHosts would be a fault of the caller.
var errNoHosts = errors.New("make a certificate: no host is named")

// Certificate issues a certificate by the Core's authority, for 90 days.
func (d *Door) Certificate(hosts []string) (chain, key []byte, err error) {
	if len(hosts) == 0 {
		return nil, nil, errNoHosts
	}
	return d.storage.keys.Load().ca.Server(hosts, d.clock.now(), certLife)
}

// Authority returns the certificate of the Core's authority, as PEM.
func (d *Door) Authority() ([]byte, error) {
	cert, _, err := d.storage.keys.Load().ca.PEM()
	return cert, err
}

// Report opens an incident about the door's certificate, or resolves it with nil.
func (d *Door) Report(err error) {
	if err == nil {
		d.notices.ReportSuccess("console certificate")
		return
	}
	d.notices.ReportFailure("console certificate", err)
}
