package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// plan is what process 1 of the node does, in order; deploy/local/plan.py writes it.
type plan struct {
	Status  string   `json:"status"` // file that tells how far the node is, and which part died
	Logs    string   `json:"logs"`   // folder with one log per part
	Actions []action `json:"actions"`
}

// action is one of: make Root the root folder and go on in its folder Cwd, Run to its end, Start and leave running,
// repeat Until it exits 0.
type action struct {
	Name    string   `json:"name"`
	Root    string   `json:"root"`
	Cwd     string   `json:"cwd"`
	Run     []string `json:"run"`
	Start   []string `json:"start"`
	Until   []string `json:"until"`
	Seconds float64  `json:"seconds"` // how long Until may take
}

// status is what the world outside may know. A part that died is listed with its exit until it runs again.
type status struct {
	Ready    bool              `json:"ready"`
	Doing    string            `json:"doing"`
	Error    string            `json:"error"`
	Parts    map[string]string `json:"parts"`    // part -> "running", or how it ended
	Restarts map[string]int    `json:"restarts"` // part -> how often it was started again
}

// restartPause is what a part that dies at once would otherwise keep the machine busy with.
const restartPause = time.Second

// supervisor owns every child. As process 1 of a PID namespace it also inherits, and must reap, orphans it never started,
// so nothing here may use exec.Cmd, whose Wait would compete with the reaper for exit codes.
type supervisor struct {
	mu     sync.Mutex
	plan   plan
	status status
	exits  map[int]chan syscall.WaitStatus
}

func initMain(path string) int {
	text, err := os.ReadFile(path)
	s := &supervisor{exits: map[int]chan syscall.WaitStatus{}, status: status{Parts: map[string]string{}, Restarts: map[string]int{}}}
	if err == nil {
		err = json.Unmarshal(text, &s.plan)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubenode init: the plan can't be read:", err)
		return 2
	}
	go s.reap()
	for _, a := range s.plan.Actions {
		s.update(func(st *status) { st.Doing = a.Name })
		if err := s.do(a); err != nil {
			s.update(func(st *status) { st.Error = fmt.Sprintf("%s: %v", a.Name, err) })
			return 1
		}
	}
	s.update(func(st *status) { st.Ready, st.Doing = true, "" })
	select {}
}

func (s *supervisor) do(a action) error {
	switch {
	case a.Root != "":
		return pivot(a.Root, a.Cwd)
	case a.Start != nil:
		return s.start(a)
	case a.Until != nil:
		return s.until(a)
	default:
		return s.run(a.Name, a.Run)
	}
}

// pivot leaves the machine's root folder for one that holds only what the node may see. The old one must not stay
// reachable: with it gone the node can't leave a file or a mount behind, wherever its parts choose to write.
func pivot(root, cwd string) error {
	old := filepath.Join(root, "old")
	if err := os.Mkdir(old, 0o700); err != nil {
		return err
	}
	if err := syscall.PivotRoot(root, old); err != nil {
		return fmt.Errorf("pivot_root %s: %w", root, err)
	}
	if err := os.Chdir(cwd); err != nil {
		return err
	}
	if err := syscall.Unmount("/old", syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount of the machine's root: %w", err)
	}
	return os.Remove("/old")
}

func (s *supervisor) run(name string, argv []string) error {
	exit, err := s.spawn(name, argv)
	if err != nil {
		return err
	}
	if end := <-exit; end != 0 {
		return fmt.Errorf("%v %s", argv, describe(end))
	}
	return nil
}

func (s *supervisor) start(a action) error {
	exit, err := s.spawn(a.Name, a.Start)
	if err != nil {
		return err
	}
	s.update(func(st *status) { st.Parts[a.Name] = "running" })
	go s.keep(a, exit)
	return nil
}

// keep starts a part again when it dies, as a kubelet does with static pods: but only once the node is ready. Before that a death ends
// the start, and tells why.
func (s *supervisor) keep(a action, exit chan syscall.WaitStatus) {
	for {
		end := <-exit
		ready := false
		s.update(func(st *status) {
			st.Parts[a.Name] = describe(end) + " at " + time.Now().Format(time.RFC3339)
			ready = st.Ready
		})
		if !ready {
			return
		}
		time.Sleep(restartPause)
		again, err := s.spawn(a.Name, a.Start)
		if err != nil {
			s.update(func(st *status) { st.Parts[a.Name] = fmt.Sprintf("can't be started again: %v", err) })
			return
		}
		exit = again
		s.update(func(st *status) {
			st.Parts[a.Name] = "running"
			st.Restarts[a.Name]++
		})
	}
}

// until also ends when a part that was started has died: waiting on would only hide which one.
func (s *supervisor) until(a action) error {
	deadline := time.Now().Add(time.Duration(a.Seconds * float64(time.Second)))
	for {
		err := s.run(a.Name, a.Until)
		if err == nil {
			return nil
		}
		if dead := s.dead(); dead != "" {
			return fmt.Errorf("%s", dead)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v s: %w", a.Seconds, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *supervisor) dead() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for part, how := range s.status.Parts {
		if how != "running" {
			return part + " " + how
		}
	}
	return ""
}

// spawn holds the lock until the child is registered, so that the reaper can't see its end before.
func (s *supervisor) spawn(name string, argv []string) (chan syscall.WaitStatus, error) {
	log, err := os.OpenFile(filepath.Join(s.plan.Logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, err
	}
	process, err := os.StartProcess(path, argv, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{null, log, log}})
	if err != nil {
		return nil, err
	}
	exit := make(chan syscall.WaitStatus, 1)
	s.exits[process.Pid] = exit
	return exit, process.Release()
}

func (s *supervisor) reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for {
		var end syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &end, syscall.WNOHANG, nil)
		if err != nil || pid <= 0 {
			<-children
			continue
		}
		s.mu.Lock()
		if exit, ours := s.exits[pid]; ours {
			exit <- end
			delete(s.exits, pid)
		}
		s.mu.Unlock()
	}
}

// update writes to a second file first: a reader never sees half a status.
func (s *supervisor) update(change func(*status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
	text, err := json.Marshal(s.status)
	if err == nil {
		err = os.WriteFile(s.plan.Status+".new", text, 0o644)
	}
	if err == nil {
		err = os.Rename(s.plan.Status+".new", s.plan.Status)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubenode init: the status can't be written:", err)
	}
}

func describe(end syscall.WaitStatus) string {
	if end.Signaled() {
		return fmt.Sprintf("was killed by signal %d", end.Signal())
	}
	return fmt.Sprintf("exited with code %d", end.ExitStatus())
}
