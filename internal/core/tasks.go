package core

import (
	"context"
	"fmt"
	"time"

	"nightferry/internal/kinds"
	"nightferry/internal/tasks"
	"nightferry/internal/wire"
)

// How late a task's turn may end.
const (
	lateTask = time.Hour
	lateLong = 12 * time.Hour // tasks that read a whole source or the whole bucket
)

// Name prefixes of the tasks that publish and measure a channel.
const (
	publishTask = "publish "
	measureTask = "measure "
)

// newTasks makes the tasks.
func (c *Core) newTasks() *tasks.Service {
	return tasks.New(tasks.Options{Alarms: taskAlarms{c}, Now: c.o.Now, Keep: func(past map[string]tasks.Past) {
		if err := c.pastTasks().saveFile(past); err != nil {
			c.notices.ReportFailure("state", fmt.Errorf("keep when tasks succeeded: %w", err))
		}
	}})
}

// pastTasks is the file that keeps overdue tasks overdue over a restart.
func (c *Core) pastTasks() jsonFile { return jsonFile{c.storage.state, "tasks.json", 1 << 16} }

func (c *Core) restoreTasks() {
	var past map[string]tasks.Past
	if err := c.pastTasks().loadFile(&past); err != nil {
		c.notices.ReportFailure("state", fmt.Errorf("when tasks succeeded: %w", err))
	}
	c.tasks.Restore(past)
}

type taskAlarms struct{ core *Core }

func (a taskAlarms) Overdue(task, text string) {
	a.core.incidents.Raise(kinds.Overdue, task, wire.Address{}, text)
}

func (a taskAlarms) OnTime(task string) {
	a.core.incidents.Resolve(kinds.Overdue, task, wire.Address{})
}

// runEvery runs the turns of a task until ctx ends.
func (c *Core) runEvery(ctx context.Context, name string, period, bound time.Duration, do func(context.Context) error) error {
	return c.tasks.Run(ctx, tasks.Task{Name: name, Period: period, Bound: bound, Do: do})
}

// quietTask wraps a task that reports its failures itself.
func quietTask(do func(context.Context)) func(context.Context) error {
	return func(ctx context.Context) error { do(ctx); return nil }
}

// Tasks lists the Core's recurring tasks.
func (c *Core) Tasks() []tasks.Status { return c.tasks.List() }
