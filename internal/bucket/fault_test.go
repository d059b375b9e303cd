package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nightferry/internal/bucket"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

// faulty opens a bucket of the real server with faults on the line to it; good goes past them.
func faulty(t *testing.T, tweak func(*bucket.Options), faults ...s3test.Fault) (bad, good bucket.Store, wire *s3test.Wire) {
	t.Helper()
	direct := s3test.S3(t)
	b, wire := s3test.Through(t, direct, faults...)
	o := b.Options()
	if tweak != nil {
		tweak(&o)
	}
	return testbed.OpenStore(t, b.URL("pre"), o), testbed.OpenStore(t, direct.URL("pre"), direct.Options()), wire
}

func TestSlowDownIsRetried(t *testing.T) {
	var told []error
	var mu sync.Mutex
	s, _, wire := faulty(t, func(o *bucket.Options) {
		o.OnRetry = func(err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, err)
		}
	}, s3test.SlowDown(2))
	put(t, s, "a", "x")
	if n := wire.Counts().Requests(); n != 3 {
		t.Errorf("%d requests, want two refused and one good", n)
	}
	if len(told) != 2 {
		t.Fatalf("told of %v", told)
	}
	want(t, told[0], bucket.KindThrottled, nil, "put", "a")
}

func TestThrottledToTheEnd(t *testing.T) {
	s, _, wire := faulty(t, func(o *bucket.Options) { o.MaxAttempts = 3 }, s3test.SlowDown(-1))
	_, _, err := s.Get(t.Context(), "a", 0, -1)
	want(t, err, bucket.KindThrottled, nil, "get", "a")
	if !strings.Contains(err.Error(), "after 3 tries") || wire.Counts().Requests() != 3 {
		t.Errorf("%v after %v", err, wire.Counts())
	}
}

// Checks the error texts for people, and the kinds for the program.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		kind   bucket.Kind
		text   string
	}{
		{400, "ExpiredToken", bucket.KindExpired, "credentials have expired"},
		{403, "AccessDenied", bucket.KindDenied, "s3:GetObject"},
		{403, "InvalidAccessKeyId", bucket.KindDenied, "AWS_ACCESS_KEY_ID"},
		{403, "SignatureDoesNotMatch", bucket.KindDenied, "secret key"},
		{403, "RequestTimeTooSkewed", bucket.KindOther, "set this machine's clock"},
		{404, "NoSuchBucket", bucket.KindOther, "no such bucket"},
		{404, "Oops", bucket.KindEndpoint, "is there an S3 server"},
		{301, "PermanentRedirect", bucket.KindEndpoint, "add ?region=eu-north-1"},
		{400, "AuthorizationHeaderMalformed", bucket.KindEndpoint, "add ?region=eu-north-1"},
		{500, "InternalError", bucket.KindUnreachable, "has a fault"},
		{502, "Whatever", bucket.KindUnreachable, "has a fault"},
		{507, "XMinioStorageFull", bucket.KindFull, "disk is full"},
		{407, "", bucket.KindUnreachable, "HTTPS_PROXY"},
	} {
		t.Run(fmt.Sprint(c.status, c.code), func(t *testing.T) {
			refuse := func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("X-Amz-Bucket-Region", "eu-north-1")
					s3test.S3Error(w, c.status, c.code, "said the server")
				})
			}
			s, _, _ := faulty(t, func(o *bucket.Options) { o.MaxAttempts = 2 }, refuse)
			_, _, err := s.Get(t.Context(), "k", 0, -1)
			want(t, err, c.kind, nil, "get", "k")
			if !strings.Contains(err.Error(), c.text) {
				t.Errorf("%q does not say %q", err, c.text)
			}
			if errors.Is(err, bucket.ErrNoBucket) != (c.code == "NoSuchBucket") {
				t.Errorf("%q is taken for a missing bucket, or not for one", err)
			}
			if errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q reads as an absent object", err)
			}
			if _, err := s.Put(t.Context(), "k", bucket.Bytes(nil), bucket.Cond{}); bucket.KindOf(err) != c.kind {
				t.Errorf("put: %v", err)
			}
		})
	}
}

func TestBrokenBodyIsResumed(t *testing.T) {
	s, good, wire := faulty(t, nil, s3test.CutBody(3, 1<<20))
	big := noise(8 << 20)
	testbed.WriteObject(t, good, "big", big)
	got := testbed.ReadObject(t, s, "big")
	if !bytes.Equal(got, big) {
		t.Error("other bytes came back")
	}
	c := wire.Counts()
	// A reset discards data on its way, so a little is sent twice.
	if c.Requests() != 4 || c.Down > 11<<20 {
		t.Errorf("three breaks took %v: want 4 requests, and only what was on its way sent twice", c)
	}
	// A range breaks and resumes within itself.
	s, good, _ = faulty(t, nil, s3test.CutBody(2, 1000))
	testbed.WriteObject(t, good, "big", big)
	for _, c := range [][3]int64{{500, 5000, 500}, {-6000, -1, 8<<20 - 6000}} {
		got, _ := get(t, s, "big", c[0], c[1])
		if got != string(big[c[2]:c[2]+int64(len(got))]) || len(got) < 5000 {
			t.Errorf("range %v: other bytes came back", c)
		}
	}
}

func TestBrokenBodyGivesUp(t *testing.T) {
	s, good, wire := faulty(t, func(o *bucket.Options) { o.MaxAttempts = 3 }, s3test.CutBody(-1, 0))
	testbed.WriteObject(t, good, "k", noise(1<<20))
	r, _, err := s.Get(t.Context(), "k", 0, -1)
	if err == nil {
		defer r.Close()
		_, err = io.ReadAll(r)
	}
	if err == nil || wire.Counts().Requests() > 9 {
		t.Fatalf("got %v after %v", err, wire.Counts())
	}
	if k := bucket.KindOf(err); k != bucket.KindUnreachable {
		t.Errorf("kind %v: %v", k, err)
	}
}

// A connection that passes each response's headers and then breaks is no damage: code that took it for damage would
// give up good objects.
func TestLineThatBreaksAfterTheHeaders(t *testing.T) {
	line := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"tag"`)
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
	}
	s, _, _ := faulty(t, func(o *bucket.Options) { o.MaxAttempts = 3 }, line)
	r, _, err := s.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = io.ReadAll(r)
	want(t, err, bucket.KindUnreachable, io.ErrUnexpectedEOF, "get", "k")
}

// A body that is resumed never mixes two objects.
func TestChangedWhileRead(t *testing.T) {
	s, good, _ := faulty(t, nil, s3test.CutBody(1, 100<<10))
	testbed.WriteObject(t, good, "k", noise(1<<20))
	r, _, err := s.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	testbed.WriteObject(t, good, "k", make([]byte, 1<<20))
	_, err = io.ReadAll(r)
	want(t, err, bucket.KindIntegrity, nil, "get", "k")
	if !strings.Contains(err.Error(), "while it was read") {
		t.Error(err)
	}
}

const stall = 150 * time.Millisecond

func TestStallIsAFailure(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	quick := func(o *bucket.Options) { o.Stall, o.MaxAttempts = stall, 3 }

	s, _, wire := faulty(t, quick, s3test.Hang(1, "", release))
	put(t, s, "a", "x")
	if n := wire.Counts().Requests(); n != 2 {
		t.Errorf("%d requests, want one that hung and one that did not", n)
	}

	s, good, _ := faulty(t, quick, s3test.HangBody(2, 10<<10, release))
	big := noise(1 << 20)
	testbed.WriteObject(t, good, "big", big)
	if !bytes.Equal(testbed.ReadObject(t, s, "big"), big) {
		t.Error("other bytes came back")
	}

	s, _, _ = faulty(t, quick, s3test.Hang(-1, "", release))
	_, _, err := s.Get(t.Context(), "a", 0, -1)
	want(t, err, bucket.KindUnreachable, nil, "get", "a")
	if !strings.Contains(err.Error(), "no byte moved") {
		t.Error(err)
	}
}

// A slow caller, or a rate limit, is no stall of the network.
func TestSlowUserIsNoStall(t *testing.T) {
	const patience = 300 * time.Millisecond
	s, _, wire := faulty(t, func(o *bucket.Options) { o.Stall = patience })
	big := bucket.Bytes(noise(8 << 20)) // more than the buffers on the way hold
	body := big
	body.R = &slowReads{r: big.R, pause: 3 * patience}
	if _, err := s.Put(t.Context(), "k", body, bucket.Cond{}); err != nil {
		t.Fatal(err)
	}
	r, _, err := s.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, &slowReads{r: r, pause: 3 * patience}); n != big.Size || err != nil {
		t.Errorf("read %d: %v", n, err)
	}
	if c := wire.Counts(); c.Requests() != 2 {
		t.Errorf("stalls were seen: %v", c)
	}
}

// slowReads takes one long break, after its first read.
type slowReads struct {
	r     io.Reader
	pause time.Duration
	reads int
}

func (s *slowReads) Read(p []byte) (int, error) {
	if s.reads++; s.reads == 2 {
		<-time.After(s.pause)
	}
	return s.r.Read(p)
}

func (s *slowReads) Seek(off int64, whence int) (int64, error) {
	return s.r.(io.Seeker).Seek(off, whence)
}

func TestLostAnswers(t *testing.T) {
	s, _, _ := faulty(t, nil, s3test.LoseAnswer(1, s3test.KindPut))
	put(t, s, "plain", "x") // tried again, without further effect

	s, good, _ := faulty(t, nil, s3test.LoseAnswer(1, s3test.KindPut))
	_, err := s.Put(t.Context(), "cond", bucket.Bytes([]byte("mine")), bucket.Cond{Absent: true})
	// As documented: it happened, but the second try met the first one's object.
	want(t, err, bucket.KindPrecondition, fs.ErrExist, "put", "cond")
	if got, _ := get(t, good, "cond", 0, -1); got != "mine" {
		t.Errorf("the store holds %q", got)
	}

	s, _, _ = faulty(t, nil, s3test.LoseAnswer(1, s3test.KindDelete), s3test.LoseAnswer(1, s3test.KindList))
	if err := s.Delete(t.Context(), "cond"); err != nil {
		t.Error(err)
	}
	if got := list(t, s, ""); len(got) != 0 {
		t.Error(got)
	}
}

func TestDamagedUploads(t *testing.T) {
	s, _, wire := faulty(t, nil, s3test.FlipUpload(1, 3))
	body := noise(100 << 10)
	testbed.WriteObject(t, s, "k", body)
	if !bytes.Equal(testbed.ReadObject(t, s, "k"), body) {
		t.Error("other bytes came back")
	}
	if c := wire.Counts(); c.Kinds[s3test.KindPut] != 2 || c.Failed != 1 {
		t.Errorf("want one refusal and one good PUT: %v", c)
	}
	s, good, wire := faulty(t, nil, s3test.FlipUpload(-1, 3))
	_, err := s.Put(t.Context(), "k", bucket.Bytes(body), bucket.Cond{})
	want(t, err, bucket.KindIntegrity, nil, "put", "k")
	if got := list(t, good, ""); len(got) != 0 || wire.Counts().Requests() != 3 {
		t.Errorf("%v stored after %v", got, wire.Counts())
	}
}

// Checks the requests: a checksum and a signed payload with each PUT, the body read only once for it, one request per
// call, and never a HEAD.
func TestRequests(t *testing.T) {
	var mu sync.Mutex
	var puts []http.Header
	spy := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				mu.Lock()
				puts = append(puts, r.Header.Clone())
				mu.Unlock()
			}
			next.ServeHTTP(w, r)
		})
	}
	s, _, wire := faulty(t, nil, spy)
	for _, size := range []int{0, 10, 5 << 20} {
		body := bucket.Bytes(noise(size))
		reads := &countingReads{ReadSeeker: body.R}
		body.R = reads
		if _, err := s.Put(t.Context(), "k", body, bucket.Cond{}); err != nil {
			t.Fatal(err)
		}
		if reads.n != int64(size) {
			t.Errorf("a body of %d bytes was read for %d", size, reads.n)
		}
		h := puts[len(puts)-1]
		if h.Get("X-Amz-Content-Sha256") != body.SHA256.String() || h.Get("X-Amz-Checksum-Sha256") == "" {
			t.Errorf("headers of a PUT: %v", h)
		}
		get(t, s, "k", 0, -1)
	}
	if err := s.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	list(t, s, "")
	wanted := map[string]int64{s3test.KindPut: 3, s3test.KindGet: 3, s3test.KindDelete: 1, s3test.KindList: 1}
	if diff := cmp.Diff(wanted, wire.Counts().Kinds); diff != "" {
		t.Error(diff)
	}
}

type countingReads struct {
	io.ReadSeeker
	n int64
}

func (c *countingReads) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	c.n += int64(n)
	return n, err
}

func TestPresign(t *testing.T) {
	s := s3test.S3(t).Open(t)
	put(t, s, "packs/aa/x", "0123456789")
	p, ok := bucket.Limit(s, 1<<30).(bucket.Presigner) // also through the limit
	if !ok {
		t.Fatal("an S3 store does not presign")
	}
	if _, ok := bucket.Limit(openDir(t, t.TempDir()), 1<<30).(bucket.Presigner); ok {
		t.Error("a directory store claims to presign")
	}
	url, _, err := p.PresignGet(t.Context(), "packs/aa/x", time.Now(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	fetch := func(url, rng string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if rng != "" {
			req.Header.Set("Range", rng)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if status, body := fetch(url, ""); status != 200 || body != "0123456789" {
		t.Error(status, body)
	}
	if status, body := fetch(url, "bytes=2-4"); status != 206 || body != "234" {
		t.Error(status, body)
	}
	if status, _ := fetch(strings.Replace(url, "packs/aa/x", "packs/aa/y", 1), ""); status != 403 {
		t.Errorf("the URL opens another object: %d", status)
	}
	for _, d := range []time.Duration{0, 8 * 24 * time.Hour} {
		if _, _, err := p.PresignGet(t.Context(), "k", time.Now(), d); err == nil {
			t.Errorf("an expiry of %v was accepted", d)
		}
	}
}

func TestCancelEndsWaiting(t *testing.T) {
	s, _, _ := faulty(t, func(o *bucket.Options) { o.MinBackoff, o.MaxBackoff = time.Hour, time.Hour }, s3test.SlowDown(-1))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _, err := s.Get(ctx, "a", 0, -1)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// A cache on the way that ignores Range must not be accepted as the store: it would deliver bytes of another place.
func TestRangeIgnored(t *testing.T) {
	cache := func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"tag"`)
			_, _ = io.WriteString(w, "0123456789")
		})
	}
	s, _, _ := faulty(t, nil, cache)
	for _, c := range [][2]int64{{2, 3}, {2, -1}, {0, 3}, {-3, -1}} {
		_, _, err := s.Get(t.Context(), "k", c[0], c[1])
		want(t, err, bucket.KindUnreachable, nil, "get", "k")
		if !strings.Contains(err.Error(), "honour ranges") {
			t.Error(err)
		}
	}
	if got, _ := get(t, s, "k", 0, 10); got != "0123456789" { // a range that is the whole object is served by it
		t.Error(got)
	}
}

// A list that is out of order, or cut short with no way to go on, is an error and not a list.
func TestBadLists(t *testing.T) {
	for name, body := range map[string]string{
		"out of order": `<Contents><Key>pre/b</Key><Size>1</Size></Contents><Contents><Key>pre/a</Key><Size>1</Size></Contents>`,
		"cut short":    `<IsTruncated>true</IsTruncated><Contents><Key>pre/a</Key><Size>1</Size></Contents>`,
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := faulty(t, nil, func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/xml")
					fmt.Fprintf(w, "<ListBucketResult>%s</ListBucketResult>", body)
				})
			})
			err := s.List(t.Context(), "", func(bucket.Info) error { return nil })
			want(t, err, bucket.KindIntegrity, nil, "list", "")
		})
	}
}
