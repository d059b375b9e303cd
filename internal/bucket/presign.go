package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	// MaxPresign is the longest life of a URL that S3 signs.
	MaxPresign = 7 * 24 * time.Hour
	// renewBefore is how long before its expiry a credential is renewed: a URL
	// signed in its last moments would be useless.
	renewBefore = 2 * time.Minute
)

var errCredentialEnds = errors.New("the credential has ended, and its source gives no other yet")

// PresignGet implements Presigner.
func (s *s3Store) PresignGet(ctx context.Context, key string, now time.Time, life time.Duration) (string, time.Time, error) {
	if err := checkKey("presign", key); err != nil {
		return "", time.Time{}, err
	}
	if life < time.Second || life > MaxPresign {
		return "", time.Time{}, &Error{Op: "presign", Key: key, Kind: KindOther, Err: fmt.Errorf("a life of %s is not within 1s and %s", life, MaxPresign)}
	}
	p := &presigner{now: now, until: now.Add(life)}
	req, err := s3.NewPresignClient(s.client).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: aws.String(s.prefix + key)},
		func(o *s3.PresignOptions) { o.Expires, o.Presigner = life, p })
	if errors.Is(err, errCredentialEnds) {
		return "", time.Time{}, &Error{Op: "presign", Key: key, Kind: KindExpired, Err: errCredentialEnds, Hint: "renew the Core's S3 credential"}
	}
	if err != nil {
		return "", time.Time{}, s3Error(ctx, "presign", key, err)
	}
	return req.URL, p.until, nil
}

// presigner signs by the store's clock in place of this machine's, and for no
// longer than the credential lives. S3 rejects a URL once the signing
// credential has expired, regardless of the expiry in the URL.
type presigner struct{ now, until time.Time }

// PresignHTTP implements s3.HTTPPresignerV4.
func (p *presigner) PresignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, payloadHash, service, region string, _ time.Time, fns ...func(*v4.SignerOptions)) (string, http.Header, error) {
	if c.CanExpire {
		end := c.Expires
		if end.Sub(p.now) < time.Minute {
			end = end.Add(renewBefore) // the SDK's cache has subtracted it
		}
		if end.Before(p.until) {
			p.until = end
		}
	}
	left := p.until.Sub(p.now) / time.Second
	if left < 1 {
		return "", nil, errCredentialEnds
	}
	q := r.URL.Query()
	q.Set("X-Amz-Expires", strconv.FormatInt(int64(left), 10))
	r.URL.RawQuery = q.Encode()
	return v4.NewSigner().PresignHTTP(ctx, c, r, payloadHash, service, region, p.now, append(fns, func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })...)
}
