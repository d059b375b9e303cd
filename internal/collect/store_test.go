package collect

import (
	"context"
	"strings"
	"sync"

	"nightferry/internal/bucket"
)

// gate runs something before the first put of a key with the given prefix.
type gate struct {
	bucket.Store
	key    string
	once   sync.Once
	before func()
}

func (g *gate) Put(ctx context.Context, key string, b bucket.Body, c bucket.Cond) (bucket.Info, error) {
	if strings.HasPrefix(key, g.key) {
		g.once.Do(g.before)
	}
	return g.Store.Put(ctx, key, b, c)
}
