package main

import "context"

var errSameStore = usagef("--from and --to name the same store")

func (s portableStore) sameAs(ctx context.Context, other store) (bool, error) {
	o, ok := other.(portableStore)
	if !ok {
		return false, nil
	}
	return s.SameAs(ctx, o.Store)
}

func (s fileStore) sameAs(ctx context.Context, other store) (bool, error) {
	o, ok := other.(fileStore)
	if !ok {
		return false, nil
	}
	return s.SameAs(ctx, o.Store)
}

func (s sqlStore) sameAs(ctx context.Context, other store) (bool, error) {
	o, ok := other.(sqlStore)
	if !ok {
		return false, nil
	}
	return s.SameAs(ctx, o.Store)
}
