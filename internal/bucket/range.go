package bucket

import (
	"context"
	"fmt"
)

// maxPut is the maximum size of one S3 PUT.
const maxPut = 5 << 30

func checkGet(ctx context.Context, key string, n, off int64) error {
	if err := checkKey("get", key); err != nil {
		return err
	}
	if n == 0 && off >= 0 {
		return &Error{Op: "get", Key: key, Kind: KindOther, Err: errEmptyRange}
	}
	if err := ctx.Err(); err != nil {
		return &Error{Op: "get", Key: key, Kind: KindOther, Err: err}
	}
	return nil
}

func checkPut(ctx context.Context, key string, body Body) error {
	err := ctx.Err()
	switch {
	case err != nil:
	case body.R == nil || body.Size < 0:
		err = fmt.Errorf("a body of %d bytes", body.Size)
	case body.Size > maxPut:
		err = fmt.Errorf("%d bytes are more than one PUT may carry (%d)", body.Size, int64(maxPut))
	default:
		return checkKey("put", key)
	}
	return &Error{Op: "put", Key: quoteKey(key), Kind: KindOther, Err: err}
}

// resolveRange resolves off and n, as Store.Get means them, against an object of size bytes.
func resolveRange(size, off, n int64) (first, length int64, err error) {
	switch {
	case off < 0:
		first = max(0, size+off)
		return first, size - first, nil
	case off == 0 && n < 0:
		return 0, size, nil
	case off >= size || n > size-off:
		return 0, 0, errRange
	case n < 0:
		return off, size - off, nil
	}
	return off, n, nil
}

func rangeError(key string, size, off, n int64) error {
	want := fmt.Sprintf("bytes %d-%d", off, off+n-1)
	if n < 0 {
		want = fmt.Sprintf("bytes %d-", off)
	}
	return &Error{Op: "get", Key: key, Kind: KindIntegrity, Hint: "the object is cut short, or its index is wrong: run nightferry fsck STORE",
		Err: fmt.Errorf("%w: %s of %d bytes", errRange, want, size)}
}
