package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/collect"
	"nightferry/internal/wire"
)

// healthFile remembers, below the Core's state, when the bucket was last
// checked, so that a restart does not check it again.
const healthFile = "bucket.json"

const (
	healthEvery = 23*time.Hour + 30*time.Minute
	healthAgain = time.Hour // where there is damage, or the check failed
)

// bucketHealth is the last check.
type bucketHealth struct {
	At     time.Time `json:"at"`
	Damage int64     `json:"damage"` // -1: it could not be made
}

// checkBucketDue looks once a day whether every object that the releases need is
// in the bucket, in its full size: fsck without reading the content. Where
// something is amiss it looks again each hour, and after each publish, since that
// heals.
func (c *Core) checkBucketDue(ctx context.Context) {
	last, err := c.lastHealth()
	if err != nil {
		c.notices.Trouble("bucket", err)
	}
	every := healthEvery
	if last.Damage != 0 {
		every = healthAgain
	}
	now := c.clock.wall()
	healed := last.Damage != 0 && c.healing.Swap(false)
	if !clock.Passed(last.At, now, every) && !healed {
		return
	}
	damage, err := c.checkBucket(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		damage = -1
		c.alarms.Raise(BucketBad, "check", wire.Address{}, fmt.Sprintf("the bucket could not be checked: %v; it is tried again", err))
		c.notices.Trouble("bucket", err)
	} else {
		c.alarms.Over(BucketBad, "check", wire.Address{})
	}
	if err := (jsonFile{c.storage.state, healthFile, 1 << 10}).save(bucketHealth{now, damage}); err != nil {
		c.notices.Trouble("bucket", err)
	}
}

// lastHealth returns the last check; there is one to be made where that is zero.
func (c *Core) lastHealth() (h bucketHealth, err error) {
	if err := (jsonFile{c.storage.state, healthFile, 1 << 10}).load(&h); err != nil {
		return bucketHealth{}, err
	}
	return h, nil
}

// checkBucket checks once, and opens or resolves the incident.
func (c *Core) checkBucket(ctx context.Context) (damage int64, err error) {
	dir, err := c.storage.subfolder("check")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	r := c.storage.repo.Load()
	text, more := "", 0
	rep, err := collect.Fsck(ctx, r, r.Segments(dir), collect.FsckOptions{}, func(f collect.Finding) {
		switch s := f.String(); {
		case f.Severity != collect.Damage:
		case text != "" && len(text)+len(s) > maxText-100:
			more++
		case text != "":
			text += "; " + s
		default:
			text = s
		}
	})
	if err != nil {
		return 0, err
	}
	if rep.Damage == 0 {
		c.alarms.Over(BucketBad, "", wire.Address{})
		return 0, nil
	}
	if more > 0 {
		text += fmt.Sprintf("; and %d more, which nightferry fsck STORE lists", more)
	}
	c.alarms.Raise(BucketBad, "", wire.Address{}, "the bucket: "+text)
	return rep.Damage, nil
}
