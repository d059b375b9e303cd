package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"nightferry/internal/halt"
	"nightferry/internal/repo"
	"nightferry/internal/trust"
)

// followTrust reads the trust documents that are newer than the site's, before a new halt object of the store is judged:
// while the Core is silent, the key of the object may have been made or revoked. An error means that the object must
// not be judged now. An object that only adds halt orders, by a key that the site knows, is judged all the same.
func (h *haltState) followTrust(ctx context.Context, object []byte) error {
	s, err := trust.Parse(halt.Kind, halt.Version, halt.Max, object)
	if err != nil || !h.isNews(s, object) {
		return nil
	}
	if err = h.readNextTrust(ctx); err != nil && h.onlyStops(s) {
		h.s.logNote(Warning, "", "halt orders are obeyed without the newest trust document", err)
		return nil
	}
	return err
}

// isNews reports whether a halt object may change the orders in force. The objects of the Core and the store may have the same
// orders and epoch in different bytes, if the repository is encrypted.
func (h *haltState) isNews(s *trust.Signed, object []byte) bool {
	h.mu.Lock()
	newest, same := h.newest, bytes.Equal(object, h.object)
	h.mu.Unlock()
	if epoch := s.Subject.Number; epoch != newest || same {
		return epoch > newest
	}
	if s.Verify(haltOf(h.s.id.Repo, s)) != nil {
		return true
	}
	orders, err := h.readOrders(s)
	return err != nil || !h.hasOrders(orders)
}

// hasOrders reports whether all orders are in force here already.
func (h *haltState) hasOrders(orders *halt.Orders) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.orders != nil && !slices.ContainsFunc(orders.Active, func(o halt.Order) bool { return !h.orders.Has(o.ID) })
}

// onlyStops reports whether an object by a known key stops a channel here, and lifts no order that stops one.
func (h *haltState) onlyStops(s *trust.Signed) bool {
	if s.Verify(haltOf(h.s.id.Repo, s)) != nil || h.keys.allowHalt(s.Signer) != nil {
		return false
	}
	orders, err := h.readOrders(s)
	if err != nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.orders != nil && slices.ContainsFunc(h.orders.Active, func(o halt.Order) bool {
		return h.concernsSite(o) && !slices.Contains(orders.Active, o)
	}) {
		return false
	}
	return slices.ContainsFunc(orders.Active, h.concernsSite)
}

// haltOf returns the subject that the signature of a repository's halt object must cover.
func haltOf(repo trust.RepoID, s *trust.Signed) trust.Subject {
	return trust.Subject{Kind: halt.Kind, Version: halt.Version, Repo: repo, Number: s.Subject.Number}
}

// readNextTrust reads trust documents of the store until one is absent, or as far as the Core has presigned URLs.
func (h *haltState) readNextTrust(ctx context.Context) error {
	for {
		n := h.keys.current().Number + 1
		key := repo.TrustKey(n)
		if !h.urls.hasNext(key) {
			return nil
		}
		b, err := readWhole(ctx, h.store, key, trust.MaxDoc)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = h.keys.follow(context.WithoutCancel(ctx), n, b)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
		h.s.logNote(Info, "", fmt.Sprintf("trust document %d is read from the store", n), nil)
	}
}
