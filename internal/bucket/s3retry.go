package bucket

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// retryOptions are Options with the defaults filled in.
type retryOptions struct {
	attempts int
	min, max time.Duration
	on       func(error)
	answered *atomic.Bool // the store has answered a request

	keepsDamage bool // a body that the store refuses as damaged is not sent again
}

func newRetryOptions(o Options) retryOptions {
	r := retryOptions{attempts: o.MaxAttempts, min: o.MinBackoff, max: o.MaxBackoff, on: o.OnRetry, answered: &atomic.Bool{}}
	if r.attempts <= 0 {
		r.attempts = 8
	}
	if r.min <= 0 {
		r.min = 200 * time.Millisecond
	}
	if r.max <= 0 {
		r.max = 20 * time.Second
	}
	return r
}

// retryDelay returns the wait before try number attempt+1. It doubles each time, and is jittered over its upper half, so
// that many sites that were throttled together do not return together.
func (r retryOptions) retryDelay(attempt int) time.Duration {
	d := r.max
	if attempt < 30 {
		d = min(r.max, r.min<<(attempt-1))
	}
	return d/2 + rand.N(d/2+1)
}

func (r retryOptions) notifyRetry(err error) {
	if r.on != nil {
		r.on(err)
	}
}

// retryCodes are retried in addition to the SDK's own: a conditional write that collided with another one, and
// throttling by S3-compatible servers.
var retryCodes = map[string]struct{}{
	"ConditionalRequestConflict": {}, "OperationAborted": {}, "InternalError": {}, "ServiceUnavailable": {},
	"SlowDownRead": {}, "SlowDownWrite": {}, "XMinioServerNotInitialized": {}, "IncompleteBody": {},
}

// damageCodes mean that the body arrived damaged. The request is tried again, but less often: the fault may be our
// own.
var damageCodes = map[string]struct{}{
	"BadDigest": {}, "XAmzContentSHA256Mismatch": {}, "XAmzContentChecksumMismatch": {},
}

const (
	refusedTries = 2 // again, before the store has answered once
	damageTries  = 2
	keylessTries = 1 // again, after credentials were not found
)

// retryerOf makes the retryer of one operation; it is not shared, since it counts.
func (r retryOptions) retryerOf(op, key string) func(*s3.Options) {
	return func(so *s3.Options) {
		so.RetryMaxAttempts = 0 // AWS_MAX_ATTEMPTS would wrap the retryer below
		so.Retryer = &retryer{op: op, key: key, opts: r, Standard: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = r.attempts
			o.RateLimiter = ratelimit.None // its budget is shared by all transfers, and throttling would use it up at once
			o.Retryables = append(o.Retryables, retry.RetryableErrorCode{Codes: retryCodes},
				retry.RetryableHTTPStatusCode{Codes: map[int]struct{}{429: {}}})
		})}
	}
}

type retryer struct {
	*retry.Standard
	opts    retryOptions
	op, key string
	damaged int
	keyless int
	refused int
}

var _ aws.RetryerV2 = (*retryer)(nil)

func (r *retryer) IsErrorRetryable(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		return false // our own reader failed, not the store
	}
	if auth := (*proxyAuthError)(nil); errors.As(err, &auth) {
		return false // a person must sign in
	}
	found := classifyS3(context.Background(), err)
	if found.Final {
		return false
	}
	switch found.Kind {
	case KindEndpoint:
		return false // it is permanent
	case KindUnreachable:
		var dns *net.DNSError
		if !r.opts.answered.Load() && (errors.Is(err, errRefused) || errors.As(err, &dns)) {
			r.refused++ // a slip in the URL is more likely than a fault
			return r.refused <= refusedTries
		}
	case KindDenied, KindExpired:
		if noCredentials(err) { // asking all sources takes seconds, and their answers seldom change
			r.keyless++
			return r.keyless <= keylessTries
		}
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		if _, ok := damageCodes[api.ErrorCode()]; ok {
			r.damaged++
			return r.damaged <= damageTries && !r.opts.keepsDamage
		}
	}
	return r.Standard.IsErrorRetryable(err)
}

func (r *retryer) RetryDelay(attempt int, err error) (time.Duration, error) {
	r.opts.notifyRetry(s3Error(context.Background(), r.op, r.key, err))
	return r.opts.retryDelay(max(1, attempt)), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
