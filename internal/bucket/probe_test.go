package bucket_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"nightferry/internal/bucket"
	"nightferry/internal/s3test"
	"nightferry/internal/testbed"
)

// ignorant is a store that ignores conditions or checksums, sends no time, or returns whole
// objects when a part was requested.
type ignorant struct {
	bucket.Store
	ignores string
}

func (i ignorant) Put(ctx context.Context, key string, b bucket.Body, c bucket.Cond) (bucket.Info, error) {
	if i.ignores == "If-None-Match" && c.Absent || i.ignores == "If-Match" && c.ETag != "" {
		c = bucket.Cond{}
	}
	if i.ignores == "checksum" {
		body, err := io.ReadAll(b.R)
		if err != nil {
			return bucket.Info{}, err
		}
		b = bucket.Bytes(body)
	}
	return i.Store.Put(ctx, key, b, c)
}

func (i ignorant) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, bucket.Info, error) {
	if i.ignores == "Range" {
		off, n = 0, -1
	}
	body, info, err := i.Store.Get(ctx, key, off, n)
	if i.ignores == "Date" {
		info = bucket.Info{Key: info.Key, Size: info.Size, ETag: info.ETag, Modified: info.Modified}
	}
	return body, info, err
}

// TestProbe: Probe names the feature that a store lacks, and accepts a good
// store of each kind.
func TestProbe(t *testing.T) {
	retried := func(err error) { t.Errorf("tried again: %v", err) }
	good := map[string]bucket.Store{
		"directory": testbed.OpenStore(t, testbed.FileURL(t.TempDir()), bucket.Options{OnRetry: retried}),
		"s3":        s3test.S3(t).Open(t),
		"minio":     s3test.MinIO(t).Open(t),
	}
	for name, s := range good {
		if _, err := s.Put(t.Context(), "format", bucket.Bytes([]byte("hello")), bucket.Cond{}); err != nil {
			t.Fatal(err)
		}
		if err := bucket.Probe(t.Context(), s, "format"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for lack, word := range map[string]string{"If-None-Match": "If-None-Match", "If-Match": "If-Match", "checksum": "checksum", "Range": "offset 1", "Date": "time"} {
			err := bucket.Probe(t.Context(), ignorant{s, lack}, "format")
			if err == nil || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), "conditional writes") {
				t.Errorf("%s without %s: %v", name, lack, err)
			}
		}
		body, _, err := s.Get(t.Context(), "format", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(body); err != nil || string(b) != "hello" {
			t.Errorf("%s: the object is %q now, %v", name, b, err)
		}
		_ = body.Close()
	}
}
