package console

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	doubleFor  = 3 * time.Second // after the first one has ended
	maxDoubles = 1000
)

var errUnfinished = errors.New("the form was not carried out")

// doubles makes a form that the same person posts twice at once, as with a double click, act once. A form that failed acts
// again: the person has mended its cause. The zero value is ready.
type doubles struct {
	mu  sync.Mutex
	all map[[sha256.Size]byte]*posted
}

// posted is a form that is carried out, or was a moment ago.
type posted struct {
	done  chan struct{} // closed when the rest is set
	out   *rendered
	err   error
	ended time.Time
}

// do returns the result of build, or that of the same form which the same person has just posted. The browser gives the first of
// two posts up, so build must not end with its connection.
func (d *doubles) do(r *request, now func() time.Time, build func() (*rendered, error)) (*rendered, error) {
	if err := r.ParseForm(); err != nil {
		return build() // it reports the error
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%t\x00%s\x00%s\x00%s", r.who.Local, r.who.Name, r.URL.RequestURI(), r.PostForm.Encode()))
	for {
		first, mine := d.begin(key, now())
		if first == nil {
			return build()
		}
		if mine {
			return d.carryOut(first, now, build)
		}
		select {
		case <-first.done:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
		if first.err == nil {
			return first.out, nil
		}
	}
}

// begin returns the form under that key, and true if the caller has to carry it out. Nil: there are too many to watch.
func (d *doubles) begin(key [sha256.Size]byte, now time.Time) (p *posted, mine bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, p := range d.all {
		if !p.ended.IsZero() && (p.err != nil || now.Sub(p.ended).Abs() > doubleFor) {
			delete(d.all, k)
		}
	}
	if p := d.all[key]; p != nil {
		return p, false
	}
	if len(d.all) >= maxDoubles {
		return nil, false
	}
	if d.all == nil {
		d.all = map[[sha256.Size]byte]*posted{}
	}
	p = &posted{done: make(chan struct{})}
	d.all[key] = p
	return p, true
}

func (d *doubles) carryOut(p *posted, now func() time.Time, build func() (*rendered, error)) (*rendered, error) {
	p.err = errUnfinished // unless build returns
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		p.ended = now()
		close(p.done)
	}()
	p.out, p.err = build()
	return p.out, p.err
}
