// Work without the GIL.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

#include "runtime/threads.hpp"

namespace firth {

// Takes the GIL back. A thread cannot have it once the interpreter ends: up to Python 3.13, CPython then ends a thread
// that asks for it by unwinding its stack (pthread_exit). The first destructor or noexcept function on that stack, of
// firth, of pybind11 or of the caller, ends the process. Python 3.14 lets such threads sleep until the process is gone,
// and so does this.
[[gnu::noinline]] inline void take_gil(PyThreadState* state) {
    struct Sleep {
        bool unwinding = true;
        ~Sleep() {
            while (unwinding) pause();
        }
    } sleep;
    PyEval_RestoreThread(state);
    sleep.unwinding = false;
}

// While it lives, this thread is without the GIL. Instead of pybind11's class of the kind, everywhere: see take_gil.
// Ctrl-C, or whatever else has a handler for signals that raises, ends work that calls check_interrupt().
class Released final : Interruptible {
  public:
    Released() : state_(PyEval_SaveThread()) {}
    ~Released() { take_gil(state_); }

  private:
    // The error that the handler raised stays this thread's until Interrupted has come to the binding's caller.
    bool interrupted() override {
        take_gil(state_);
        const bool raised = PyErr_CheckSignals() != 0;
        PyEval_SaveThread();
        return raised;
    }

    PyThreadState* state_;
};

}  // namespace firth
