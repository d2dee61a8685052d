// Work without the GIL.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

#include "runtime/threads.hpp"

namespace firth {

// Takes the GIL again. No thread can take it once the interpreter ends. Up to Python 3.13, CPython then ends a thread
// that asks for it by unwinding its stack (pthread_exit). The first destructor or noexcept function on that stack, of
// firth, of pybind11 or of the caller, ends the process. In Python 3.14 such threads sleep until the process ends, and
// so they do here.
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

// The GIL is released while an object of this type exists. It replaces pybind11's class everywhere: see take_gil.
// Ctrl-C, or any other signal whose handler raises, ends work that calls check_interrupt().
class Released final : Interruptible {
  public:
    Released() : state_(PyEval_SaveThread()) {}
    ~Released() { take_gil(state_); }

  private:
    // The error that the handler raised stays set on this thread until Interrupted reaches the binding's caller.
    bool interrupted() override {
        take_gil(state_);
        const bool raised = PyErr_CheckSignals() != 0;
        PyEval_SaveThread();
        return raised;
    }

    PyThreadState* state_;
};

}  // namespace firth
