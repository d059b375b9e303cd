package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nightferry/internal/clock"
	"nightferry/internal/collect"
	"nightferry/internal/kinds"
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
func (u *Caretaker) checkBucketDue(ctx context.Context) {
	last, err := u.lastHealth()
	if err != nil {
		u.notices.ReportFailure("bucket", err)
	}
	every := healthEvery
	if last.Damage != 0 {
		every = healthAgain
	}
	now := u.clock.wallTime()
	healed := last.Damage != 0 && u.healing.Swap(false)
	if !clock.Passed(last.At, now, every) && !healed {
		return
	}
	damage, err := u.checkBucket(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		damage = -1
		u.notices.incidents.Raise(kinds.BucketBad, "check", wire.Address{}, fmt.Sprintf("the bucket could not be checked: %v; it is tried again", err))
		u.notices.ReportFailure("bucket", err)
	} else {
		u.notices.incidents.Resolve(kinds.BucketBad, "check", wire.Address{})
	}
	if err := (jsonFile{u.storage.state, healthFile, 1 << 10}).saveFile(bucketHealth{now, damage}); err != nil {
		u.notices.ReportFailure("bucket", err)
	}
}

// lastHealth returns the last check; there is one to be made where that is zero.
func (u *Caretaker) lastHealth() (h bucketHealth, err error) {
	if err := (jsonFile{u.storage.state, healthFile, 1 << 10}).loadFile(&h); err != nil {
		return bucketHealth{}, err
	}
	return h, nil
}

// checkBucket checks once, and opens or resolves the incident.
func (u *Caretaker) checkBucket(ctx context.Context) (damage int64, err error) {
	dir, err := u.storage.openSubfolder("check")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	r := u.storage.repo.Load()
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
		u.notices.incidents.Resolve(kinds.BucketBad, "", wire.Address{})
		return 0, nil
	}
	if more > 0 {
		text += fmt.Sprintf("; and %d more, which nightferry fsck STORE lists", more)
	}
	u.notices.incidents.Raise(kinds.BucketBad, "", wire.Address{}, "the bucket: "+text)
	return rep.Damage, nil
}
