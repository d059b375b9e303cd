package bucket

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"nightferry/internal/digest"
)

const hintS3 = "give s3://BUCKET/PREFIX?region=REGION&endpoint=URL"

func openS3(ctx context.Context, raw string, o Options) (Store, error) {
	a, err := parseS3(raw)
	if err != nil {
		return nil, &Error{Op: "open", Key: redactURL(raw), Kind: KindOther, Err: err, Hint: hintS3}
	}
	client := awshttp.NewBuildableClient().WithTransportOptions(tuneTransport)
	load := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		config.WithLogger(logging.Nop{}),
		config.WithCredentialsCacheOptions(func(o *aws.CredentialsCacheOptions) { o.ExpiryWindow = renewBefore }),
		config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired),
		config.WithResponseChecksumValidation(aws.ResponseChecksumValidationWhenRequired),
	}
	if a.region != "" {
		load = append(load, config.WithRegion(a.region))
	}
	if o.AccessKey != "" && o.SecretKey != "" {
		keys := aws.Credentials{AccessKeyID: o.AccessKey, SecretAccessKey: o.SecretKey, SessionToken: o.SessionToken}
		load = append(load, config.WithCredentialsProvider(aws.CredentialsProviderFunc(
			func(context.Context) (aws.Credentials, error) { return keys, nil })))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		e := s3Error(ctx, "open", redactURL(raw), err)
		e.Hint = "check the AWS_* variables and the shared AWS config file"
		return nil, e
	}
	if o.UserAgent != "" {
		name, version, _ := strings.Cut(o.UserAgent, "/")
		cfg.APIOptions = append(cfg.APIOptions, awsmiddleware.AddUserAgentKeyValue(name, version))
	}
	retry := newRetryOptions(o)
	s := &s3Store{bucket: a.bucket, prefix: a.prefix, retry: retry}
	s.http = httpClient(cfg, o, retry.answered)
	s.client = s3.NewFromConfig(cfg, func(so *s3.Options) {
		so.HTTPClient = s.http
		if a.endpoint != "" {
			so.BaseEndpoint = &a.endpoint
		}
		// Servers other than AWS seldom have a DNS name per bucket.
		so.UsePathStyle = so.BaseEndpoint != nil && a.style != "virtual" || a.style == "path"
		if so.Region == "" && so.BaseEndpoint != nil {
			so.Region = "us-east-1" // the default of such servers
		}
	})
	if s.client.Options().Region == "" {
		return nil, &Error{Op: "open", Key: redactURL(raw), Kind: KindOther, Err: errors.New("the bucket's region is not known"),
			Hint: "add ?region=REGION to the store's URL, or set AWS_REGION"}
	}
	return s, nil
}

// httpClient puts the stall watch around the transport that the SDK's configuration made, with its AWS_CA_BUNDLE.
func httpClient(cfg aws.Config, o Options, answered *atomic.Bool) *http.Client {
	if o.HTTPClient != nil {
		answered.Store(true)
		return o.HTTPClient
	}
	stall := o.Stall
	if stall <= 0 {
		stall = time.Minute
	}
	next := http.DefaultTransport
	if b, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok {
		t := b.GetTransport()
		t.DialTLSContext = dialTLS(t.DialContext, t.TLSClientConfig)
		next = t
	}
	return &http.Client{
		Transport: &stallTransport{next: next, after: stall, answered: answered},
		// A redirect means a wrong region or endpoint: the signature would not hold elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// tuneTransport makes the transport fit many ranged GETs on connections of their own: HTTP/1.1, since one HTTP/2 connection is
// one TCP window; no compression, since packs do not compress.
func tuneTransport(t *http.Transport) {
	t.Proxy = Proxies(os.Getenv)
	t.OnProxyConnectResponse = onConnect
	t.DialContext = (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	t.TLSHandshakeTimeout = handshakeTime // through a proxy
	t.ExpectContinueTimeout = time.Second
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 128, 64
	t.IdleConnTimeout = time.Minute
	t.ReadBufferSize, t.WriteBufferSize = 128<<10, 128<<10
	t.DisableCompression = true
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
}

func setPayloadHash(ctx context.Context, d digest.Digest) context.Context {
	return v4.SetPayloadHash(ctx, d.String())
}
