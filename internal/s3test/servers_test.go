package s3test

import (
	"io"
	"testing"

	"nightferry/internal/bucket"
)

func TestServersAreReal(t *testing.T) {
	for name, b := range map[string]func(testing.TB) Bucket{"versitygw": S3, "minio": MinIO} {
		t.Run(name, func(t *testing.T) {
			s := b(t).Open(t)
			if _, err := s.Put(t.Context(), "a/b", bucket.Bytes([]byte("hello")), bucket.Cond{}); err != nil {
				t.Fatal(err)
			}
			r, info, err := s.Get(t.Context(), "a/b", 1, 3)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(r); string(got) != "ell" || err != nil || info.Size != 5 {
				t.Fatalf("got %q, %v, %+v", got, err, info)
			}
		})
	}
}

// The gateway can be started again after it was closed: consecutive tests share no state.
func TestGatewayStartsAgain(t *testing.T) {
	for range 3 {
		t.Run("", func(t *testing.T) {
			s := S3(t).Open(t)
			if _, _, err := s.Get(t.Context(), "a/b", 0, -1); bucket.KindOf(err) != bucket.KindNotExist {
				t.Fatal(err)
			}
		})
	}
}
