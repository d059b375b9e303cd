package collect

import (
	"encoding/binary"
	"math"
	"slices"
	"sync"

	"nightferry/internal/digest"
)

const (
	liveShift   = 52 // of an id's first 64 bits; the rest selects the bucket
	liveBuckets = 1 << (64 - liveShift)
)

// live is the set of chunks that retained releases need. It holds the first 64
// bits of their ids, sorted, about 9 bytes for each. Two ids that share those
// bits keep each other alive. Among 10 000 000 ids this happens in one of 3 000
// repositories, and then keeps only garbage. live may be filled from many
// goroutines.
type live struct {
	mu      sync.Mutex
	buckets [liveBuckets]bucketOf
}

// bucketOf holds the ids of one bucket: sorted ones, then new ones.
type bucketOf struct {
	ids    []uint64
	sorted int
}

// growFor makes room for n ids, the number in the index. Growing step by step
// would leave as much garbage again. Unused room is never touched, and so takes
// no memory.
func (l *live) growFor(n uint64) {
	mean := float64(n) / liveBuckets
	room := int(mean*1.1+6*math.Sqrt(mean)) + 16 // ids are uniform: few buckets exceed six sigma
	slab := make([]uint64, room*liveBuckets)
	for i := range l.buckets {
		l.buckets[i].ids = slab[i*room : i*room : (i+1)*room]
	}
}

func idPrefix(id digest.Digest) uint64 { return binary.BigEndian.Uint64(id[:8]) }

func (l *live) addIDs(ids ...digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.buckets[idPrefix(id)>>liveShift].addPrefix(idPrefix(id))
	}
}

// mergeFrom adds all of other, which no other goroutine may fill meanwhile.
func (l *live) mergeFrom(other *live) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range other.buckets {
		for _, v := range other.buckets[i].ids {
			l.buckets[i].addPrefix(v)
		}
	}
}

func (b *bucketOf) addPrefix(v uint64) {
	if _, ok := slices.BinarySearch(b.ids[:b.sorted], v); ok {
		return
	}
	if len(b.ids) == cap(b.ids) {
		b.compact()
		// By an eighth, not by half: the slack of 10 000 000 ids is memory.
		b.ids = slices.Grow(b.ids, len(b.ids)/8+16)
	}
	b.ids = append(b.ids, v)
}

func (b *bucketOf) compact() {
	slices.Sort(b.ids)
	b.ids = slices.Compact(b.ids)
	b.sorted = len(b.ids)
}

// len returns the number of ids, and settles the set for a cursor.
func (l *live) len() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.buckets {
		l.buckets[i].compact()
		n += int64(len(l.buckets[i].ids))
	}
	return n
}

// cursor walks a settled set once, in step with an index that is walked in the
// same order.
type cursor struct {
	l       *live
	bucket  int
	at      int
	matched bool
	missing func(uint64) // called for each id that was not asked for; may be nil
}

// hasPrefix reports whether the set holds v, which must not be less than before.
func (c *cursor) hasPrefix(v uint64) bool {
	for {
		have, ok := c.peek()
		if !ok || have > v {
			return false
		}
		if have == v {
			c.matched = true
			return true
		}
		c.skipPrefix(have)
	}
}

// finishMissing calls missing for the remaining ids.
func (c *cursor) finishMissing() {
	for {
		have, ok := c.peek()
		if !ok {
			return
		}
		c.skipPrefix(have)
	}
}

func (c *cursor) peek() (uint64, bool) {
	for c.bucket < liveBuckets && c.at == len(c.l.buckets[c.bucket].ids) {
		c.bucket, c.at = c.bucket+1, 0
	}
	if c.bucket == liveBuckets {
		return 0, false
	}
	return c.l.buckets[c.bucket].ids[c.at], true
}

func (c *cursor) skipPrefix(have uint64) {
	if !c.matched && c.missing != nil {
		c.missing(have)
	}
	c.at++
	c.matched = false
}
