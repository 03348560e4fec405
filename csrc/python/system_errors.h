// A system call that failed becomes Python's OSError, and so FileNotFoundError and its kin.
#pragma once

#include <nanobind/nanobind.h>

#include <system_error>

namespace graphguard {

inline void translate_system_errors() {
    nanobind::register_exception_translator([](const std::exception_ptr& thrown, void*) {
        try {
            std::rethrow_exception(thrown);
        } catch (const std::system_error& error) {
            const nanobind::tuple arguments =
                nanobind::make_tuple(error.code().value(), error.what());
            PyErr_SetObject(PyExc_OSError, arguments.ptr());
        }
    });
}

}  // namespace graphguard
