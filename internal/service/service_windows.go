package service

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// Kind names the system's service manager.
const Kind = "Windows service"

// stopWithin bounds the wait for a service to stop.
const stopWithin = time.Minute

// Install registers the service, enables it at boot and starts it.
func Install(_ context.Context, c Config) error {
	if err := c.check(); err != nil {
		return err
	}
	exe, err := executable()
	if err != nil {
		return err
	}
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("reach the service manager (an administrator's prompt is needed): %w", err)
	}
	defer func() { _ = m.Disconnect() }()
	s, err := m.CreateService(c.Name, exe, mgr.Config{
		DisplayName: c.Display, Description: c.Description, StartType: mgr.StartAutomatic,
		ServiceStartName: c.User, Password: c.Password,
	}, c.Args...)
	if errors.Is(err, windows.ERROR_SERVICE_EXISTS) {
		return fmt.Errorf("%s: %w", c.Name, ErrExists)
	}
	if err != nil {
		return fmt.Errorf("register the service %s: %w", c.Name, err)
	}
	defer func() { _ = s.Close() }()
	if err := configure(s); err != nil {
		return errors.Join(fmt.Errorf("let the service %s be restarted: %w", c.Name, err), s.Delete())
	}
	if err := s.Start(); err != nil {
		// Remove a service that cannot start, so that the next attempt does not find it.
		return errors.Join(notStarted(c, err), s.Delete())
	}
	return nil
}

// notStarted returns an error with the cause and the remedy.
func notStarted(c Config, err error) error {
	if c.User != "" && errors.Is(err, windows.ERROR_SERVICE_LOGON_FAILED) {
		return fmt.Errorf("start the service %s: the account %s may not log on as a service, or its password is wrong: %w: give it the right \"Log on as a service\" (secpol.msc, Local Policies, User Rights Assignment, or by group policy) and install again", c.Name, c.User, err)
	}
	return fmt.Errorf("start the service %s: %w: it is taken out again", c.Name, err)
}

// configure sets how the service starts, and how it restarts after a failure.
func configure(s *mgr.Service) error {
	restart := mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: 5 * time.Second}
	if err := s.SetRecoveryActions([]mgr.RecoveryAction{restart, restart, restart}, 24*60*60); err != nil {
		return err
	}
	// Without it only a crash counts as a failure, not an exit code. Wine does not support either level, and does not
	// need them.
	if err := s.SetRecoveryActionsOnNonCrashFailures(true); err != nil && !errors.Is(err, windows.ERROR_INVALID_LEVEL) {
		return err
	}
	delayed := windows.SERVICE_DELAYED_AUTO_START_INFO{IsDelayedAutoStartUp: 1}
	err := windows.ChangeServiceConfig2(s.Handle, windows.SERVICE_CONFIG_DELAYED_AUTO_START_INFO, (*byte)(unsafe.Pointer(&delayed)))
	if err != nil && !errors.Is(err, windows.ERROR_INVALID_LEVEL) {
		return err
	}
	return nil
}

// Uninstall stops and removes the service.
func Uninstall(ctx context.Context, name string) error {
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("reach the service manager (an administrator's prompt is needed): %w", err)
	}
	defer func() { _ = m.Disconnect() }()
	s, err := m.OpenService(name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return fmt.Errorf("%s: %w", name, ErrAbsent)
	}
	if err != nil {
		return fmt.Errorf("open the service %s: %w", name, err)
	}
	defer func() { _ = s.Close() }()
	if err := stop(ctx, s); err != nil {
		return fmt.Errorf("stop the service %s: %w", name, err)
	}
	if err := s.Delete(); err != nil {
		return fmt.Errorf("remove the service %s: %w", name, err)
	}
	return nil
}

// stop waits until the service has ended, by polling: the manager sends no notification.
func stop(ctx context.Context, s *mgr.Service) error {
	ctx, cancel := context.WithTimeout(ctx, stopWithin)
	defer cancel()
	_, err := s.Control(svc.Stop)
	if err != nil && !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := s.Query()
		if err != nil || st.State == svc.Stopped {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Run runs serve. If the service manager started this process, Run ends serve on the manager's stop request.
func Run(ctx context.Context, name string, serve func(context.Context) error) error {
	managed, err := svc.IsWindowsService()
	if err != nil {
		return fmt.Errorf("who started this program: %w", err)
	}
	if !managed {
		return serve(ctx)
	}
	h := &handler{ctx: ctx, serve: serve}
	if err := svc.Run(name, h); err != nil {
		return fmt.Errorf("answer the service manager: %w", err)
	}
	return h.err
}

// handler handles the requests of the service manager.
type handler struct {
	ctx   context.Context // of Run: svc.Run has no place for it
	serve func(context.Context) error
	err   error
}

// failed is the exit code reported to the manager if the service ends without a stop request.
const failed = 1

// Execute implements svc.Handler.
func (h *handler) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (bool, uint32) {
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.serve(ctx) }()
	accepts := svc.AcceptStop | svc.AcceptShutdown
	status <- svc.Status{State: svc.Running, Accepts: accepts}
	for {
		select {
		case h.err = <-done:
			if h.err != nil && ctx.Err() == nil {
				return true, failed
			}
			return false, 0
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- r.CurrentStatus
			case svc.Stop, svc.Shutdown:
				status <- svc.Status{State: svc.StopPending, WaitHint: uint32(stopWithin.Milliseconds())}
				cancel()
			}
		}
	}
}
