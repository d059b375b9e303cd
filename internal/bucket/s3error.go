package bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
)

const (
	renewHint = "renew them (aws sso login, or new AWS_* variables) and run again: what arrived is kept"
	keysHint  = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
	clockHint = "set this machine's clock: S3 refuses requests that are more than 15 minutes off"
	denyHint  = "the credentials need s3:GetObject and s3:ListBucket here (without the latter, S3 calls an absent object forbidden), s3:PutObject too for what writes, and s3:DeleteObject for gc"
	storeHint = "use a store that has conditional writes (If-None-Match and If-Match), ranged reads and SHA-256 checksums, such as AWS S3 or MinIO"
	styleHint = "add style=virtual to the store's URL"
	slowHint  = "the store is overloaded: run again later, or with fewer connections"
)

// codes maps S3's error codes to kinds and texts.
var codes = map[string]struct {
	kind Kind
	text string // in place of S3's own; empty keeps that
	hint string
}{
	"NoSuchKey":                          {KindNotExist, "no such object", ""},
	"NoSuchBucket":                       {KindOther, ErrNoBucket.Error(), "check the store's URL and its region"},
	"InvalidBucketName":                  {KindEndpoint, "the store accepts no bucket of this name", "check the bucket's name in the store's URL: 3 to 63 characters from a-z, 0-9, . and -"},
	"PreconditionFailed":                 {KindPrecondition, "the object is there already, or is not the expected one any more", ""},
	"ConditionalRequestConflict":         {KindPrecondition, "another write to the object is under way", "run again"},
	"AccessDenied":                       {KindDenied, "", denyHint},
	"AllAccessDisabled":                  {KindDenied, "", ""},
	"InvalidAccessKeyId":                 {KindDenied, "the store does not know this access key", keysHint},
	"SignatureDoesNotMatch":              {KindDenied, "the secret key is not the one of this access key", keysHint},
	"InvalidToken":                       {KindDenied, "the session token is not valid", renewHint},
	"ExpiredToken":                       {KindExpired, "credentials have expired", renewHint},
	"ExpiredTokenException":              {KindExpired, "credentials have expired", renewHint},
	"TokenRefreshRequired":               {KindExpired, "credentials have expired", renewHint},
	"RequestExpired":                     {KindExpired, "the request took longer than its signature is good for", clockHint},
	"RequestTimeTooSkewed":               {KindOther, "this machine's clock and the store's differ too much", clockHint},
	"SlowDown":                           {KindThrottled, "the store says to slow down", slowHint},
	"SlowDownRead":                       {KindThrottled, "the store says to slow down", slowHint},
	"SlowDownWrite":                      {KindThrottled, "the store says to slow down", slowHint},
	"ServiceUnavailable":                 {KindThrottled, "the store is unavailable", slowHint},
	"BadDigest":                          {KindIntegrity, "the store refused the body: it arrived damaged", "memory or network faults: run again"},
	"XAmzContentSHA256Mismatch":          {KindIntegrity, "the store refused the body: it arrived damaged", "memory or network faults: run again"},
	"XAmzContentChecksumMismatch":        {KindIntegrity, "the store refused the body: it arrived damaged", "memory or network faults: run again"},
	"QuotaExceeded":                      {KindFull, "", "raise the bucket's quota, or free space in it"},
	"XMinioAdminBucketQuotaExceeded":     {KindFull, "", "raise the bucket's quota, or free space in it"},
	"XMinioStorageFull":                  {KindFull, "", "the store's disk is full"},
	"PermanentRedirect":                  {KindEndpoint, "the bucket is in another region", "give its region in the store's URL"},
	"AuthorizationHeaderMalformed":       {KindEndpoint, "", "the region is likely wrong: give the bucket's in the store's URL"},
	"IllegalLocationConstraintException": {KindEndpoint, "", "the region is likely wrong: give the bucket's in the store's URL"},
	"NotImplemented":                     {KindEndpoint, "the store does not support this request", storeHint},
	"SecondLevelDomainForbidden":         {KindEndpoint, "the store wants the bucket's name in the host name", styleHint},
	"PathStyleRequestNotAllowed":         {KindEndpoint, "the store wants the bucket's name in the host name", styleHint},
}

// s3Error converts an SDK error to an *Error. It chains none of the SDK's errors, whose texts and fields may contain
// URLs with signatures or proxy passwords.
func s3Error(ctx context.Context, op, key string, err error) *Error {
	e := classifyS3(ctx, err)
	e.Op, e.Key = op, key
	var tries *retry.MaxAttemptsError
	if errors.As(err, &tries) && e.Kind != KindPrecondition {
		e.Err = fmt.Errorf("%w (after %d tries)", e.Err, tries.Attempt)
	}
	return e
}

func classifyS3(ctx context.Context, err error) *Error {
	if cause := ctx.Err(); cause != nil {
		return &Error{Kind: KindOther, Err: cause}
	}
	var own *Error
	if errors.As(err, &own) { // a body that we were handed, failing in the SDK's hands
		c := *own
		return &c
	}
	var stall *stallError
	if errors.As(err, &stall) {
		return &Error{Kind: KindUnreachable, Err: errors.New(stall.Error()), Hint: "check the line to the store"}
	}
	var resp *awshttp.ResponseError
	// The SDK represents a request without a response as a response without a
	// status.
	if errors.As(err, &resp) && resp.Response != nil && resp.HTTPStatusCode() != 0 {
		return answerError(err, resp)
	}
	return noAnswerError(err)
}

// answerError handles a response from the store, or from a server in its place.
func answerError(err error, resp *awshttp.ResponseError) *Error {
	e := &Error{Kind: KindOther}
	status, code, text := resp.HTTPStatusCode(), "", ""
	var api smithy.APIError
	if errors.As(err, &api) {
		code, text = api.ErrorCode(), api.ErrorMessage()
	}
	if c, ok := codes[code]; ok {
		e.Kind, e.Hint = c.kind, c.hint
		if c.text != "" {
			text = c.text
		}
	} else {
		e.Kind, e.Hint = statusKind(status)
	}
	if status == http.StatusProxyAuthRequired {
		e.Hint = signInHint(resp.Response.Header.Values("Proxy-Authenticate"))
	}
	if region := resp.Response.Header.Get("X-Amz-Bucket-Region"); region != "" && (code == "PermanentRedirect" || strings.HasPrefix(e.Hint, "the region")) {
		e.Hint = "add ?region=" + region + " to the store's URL"
	}
	if req := resp.Response.Request; status == http.StatusBadRequest && code == "" && resp.ServiceRequestID() == "" && req != nil && req.URL.Scheme == "http" {
		e.Kind, e.Hint, text = KindEndpoint, "write endpoint=https://… in the store's URL, if the server has a certificate", "the answer is not an S3 server's: it likely speaks https, not http"
	}
	if text == "" {
		text = strings.ToLower(http.StatusText(status))
	}
	// The store's operators need the request id.
	where := fmt.Sprintf("%d %s", status, code)
	if id := resp.ServiceRequestID(); id != "" {
		where += ", request " + id
	}
	e.Err = fmt.Errorf("%s (%s)", scrubSecrets(text), scrubSecrets(where))
	if code == "NoSuchBucket" {
		e.Err = fmt.Errorf("%w (%s)", ErrNoBucket, scrubSecrets(where))
	}
	return e
}

func statusKind(status int) (Kind, string) {
	switch status {
	case http.StatusForbidden, http.StatusUnauthorized:
		return KindDenied, denyHint
	case http.StatusPreconditionFailed:
		return KindPrecondition, ""
	case http.StatusProxyAuthRequired:
		return KindUnreachable, signInHint(nil)
	case http.StatusNotImplemented:
		return KindEndpoint, storeHint
	case http.StatusBadRequest:
		return KindOther, "is there an S3 server at the endpoint, and does it speak what the URL says, http or https?"
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return KindThrottled, slowHint
	case http.StatusInsufficientStorage:
		return KindFull, ""
	case http.StatusNotFound, http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect:
		// Without S3's own code this proves nothing about the object: a 404 of a proxy must never read as "absent".
		return KindEndpoint, "is there an S3 server at the endpoint, and is the region right?"
	}
	if status >= 500 {
		return KindUnreachable, "the store, or a proxy before it, has a fault: run again later"
	}
	return KindOther, ""
}

// noCredentials reports whether a request was never sent because no credential
// was found.
func noCredentials(err error) bool {
	text := err.Error()
	return strings.Contains(text, "get credentials") || strings.Contains(text, "get identity")
}

// noAnswerError handles requests without a response.
func noAnswerError(err error) *Error {
	e := &Error{Kind: KindUnreachable}
	text := scrubSecrets(err.Error())
	var dns *net.DNSError
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var timeout net.Error
	var auth *proxyAuthError
	switch {
	case noCredentials(err):
		e.Kind, e.Hint, e.Err = KindDenied, keysHint, errors.New("no usable credentials")
		if low := strings.ToLower(text); strings.Contains(low, "expired") || strings.Contains(low, "sso") {
			e.Kind, e.Hint, e.Err = KindExpired, renewHint, errors.New("credentials have expired")
		}
	case errors.As(err, &auth):
		e.Err, e.Hint = auth, signInHint(auth.offers)
	case errors.Is(err, errWebPage):
		e.Kind, e.Err, e.Hint = KindEndpoint, errWebPage, "sign in to the network if it wants that, check HTTPS_PROXY, HTTP_PROXY and NO_PROXY, and the endpoint"
	case errors.Is(err, errPlainHTTP), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		e.Kind, e.Err, e.Hint = KindEndpoint, errors.New("the server at the endpoint speaks http, not https"), "write endpoint=http://… in the store's URL, or let the server have a certificate"
	case strings.Contains(text, `malformed HTTP response "\x15\x03`): // a TLS alert
		e.Kind, e.Err, e.Hint = KindEndpoint, errors.New("the server at the endpoint likely speaks https, not http"), "write endpoint=https://… in the store's URL"
	case strings.Contains(text, "malformed HTTP"), errors.As(err, &header):
		e.Kind, e.Err, e.Hint = KindEndpoint, errors.New("the server at the endpoint speaks neither http nor https"), "check the host and the port of the endpoint: an S3 server must listen there"
	case errors.As(err, &op) && op.Op == "proxyconnect", strings.Contains(text, "proxyconnect"):
		e.Err, e.Hint = fmt.Errorf("the proxy does not answer: %s", lastCause(text)), "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
	case errors.As(err, &dns):
		e.Err, e.Hint = fmt.Errorf("no address for the host %s", dns.Name), "check the endpoint, the region and this machine's DNS"
	case errors.As(err, &cert):
		e.Final, e.Err, e.Hint = true, errors.New(scrubSecrets(cert.Error())), certificateHint(cert)
	case errors.As(err, &op) && op.Op == "remote error" && tlsRefusals[op.Err.Error()] != "":
		e.Final, e.Err, e.Hint = true, fmt.Errorf("the server refuses the TLS connection: %w", op.Err), tlsRefusals[op.Err.Error()]
	case strings.Contains(text, "tls: server selected unsupported protocol version"):
		e.Final, e.Err, e.Hint = true, errors.New("the server speaks no TLS version from 1.2 on"), tlsRefusals["tls: protocol version not supported"]
	case strings.Contains(text, "Proxy Authentication Required"):
		e.Err, e.Hint = &proxyAuthError{}, signInHint(nil)
	case errors.As(err, &op):
		e.Err, e.Hint = errors.New(scrubSecrets(op.Error())), "check the endpoint, the line and the firewall"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		e.Err = fmt.Errorf("the connection broke: %w", io.ErrUnexpectedEOF)
	case errors.As(err, &timeout) && timeout.Timeout():
		e.Err, e.Hint = errors.New("no answer in time"), "check the line to the store"
	default:
		e.Kind, e.Err = KindOther, errors.New(text)
	}
	return e
}

const (
	serverHint = "check the host and the port of the endpoint, whether the server wants a certificate of its clients, which is not supported, and whether a proxy that inspects TLS refuses it"
	clientHint = "the server wants a certificate of its clients, which is not supported: let it accept requests that are signed with an access key"
)

// tlsRefusals maps the alerts with which a server ends a TLS handshake for good to their remedies. Other alerts, such as
// that of a damaged record, may heal.
var tlsRefusals = map[string]string{
	"tls: handshake failure":              serverHint,
	"tls: bad certificate":                clientHint,
	"tls: unsupported certificate":        clientHint,
	"tls: revoked certificate":            clientHint,
	"tls: expired certificate":            clientHint,
	"tls: unknown certificate":            clientHint,
	"tls: unknown certificate authority":  clientHint,
	"tls: certificate required":           clientHint,
	"tls: access denied":                  serverHint,
	"tls: protocol version not supported": "let the server offer TLS 1.2 or 1.3",
	"tls: insufficient security level":    "let the server offer TLS 1.2 or 1.3 with a current cipher",
	"tls: unrecognized name":              "write the endpoint with a host name that the server's certificate covers",
	"tls: no application protocol":        serverHint,
}

// certificateHint returns the remedy for a server's certificate that is not accepted.
func certificateHint(err error) string {
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &name):
		return "write the endpoint with a host name that the server's certificate covers"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "set this machine's clock, or renew the server's certificate"
	}
	return "if a proxy inspects TLS here, set AWS_CA_BUNDLE to its certificates"
}

var (
	queryPattern    = regexp.MustCompile(`(https?://[^\s"?]*)\?[^\s"]*`)
	userinfoPattern = regexp.MustCompile(`//[^/@\s"]*@`)
)

// scrubSecrets removes possible secrets from a text: the query of a URL, and the user and password before its host.
func scrubSecrets(s string) string {
	return userinfoPattern.ReplaceAllString(queryPattern.ReplaceAllString(s, "$1"), "//")
}

// lastCause returns the last part of a chain of causes, which is the most specific.
func lastCause(s string) string {
	parts := strings.Split(s, ": ")
	return strings.Join(parts[max(0, len(parts)-3):], ": ")
}

func isUnsatisfiable(err error) bool {
	if errors.Is(err, errUnsatisfiable) {
		return true
	}
	var resp *awshttp.ResponseError
	return errors.As(err, &resp) && resp.HTTPStatusCode() == http.StatusRequestedRangeNotSatisfiable
}
