"""Deeds that the code of a model must not do. This text is itself the source of a hostile model.

Run as a program it tries them without isolation and prints what came of each, so that a test can tell a deed that is
refused from one that never works. FACTS is put in front: folder, port, unix (a listening socket), pid and home.
"""

# ruff: noqa: F821, PTH102, PTH104, PTH107, PTH123, PTH208, PTH211, SIM115
# FACTS comes from whoever reads this; the plain functions stay, because their system calls are meant.


def apply_model(model_object, data):
    return {f"{name}={outcome}": data["image"] > 0 for name, outcome in try_all().items()}


def try_all():
    return {name: try_one(deed) for name, deed in list(globals().items()) if name.startswith("do_")}


def try_one(deed):
    try:
        deed(FACTS["folder"])
    except BaseException as error:
        return type(error).__name__
    return "done"


def library_call(number, *arguments):
    import ctypes
    import os

    library = ctypes.CDLL(None, use_errno=True)
    answer = library.syscall(number, *arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


# --- network --------------------------------------------------------------------------------------------------------


def do_connect(folder):
    import socket

    socket.create_connection(("127.0.0.1", FACTS["port"]), timeout=1).close()


def do_send_datagram(folder):
    import socket

    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", FACTS["port"]))


def do_listen(folder):
    import socket

    socket.create_server(("127.0.0.1", 0))


def do_unix_socket(folder):
    import socket

    socket.socket(socket.AF_UNIX).connect(FACTS["unix"])


def do_socket_pair(folder):
    import socket

    socket.socketpair()


def do_socket_by_number(folder):
    library_call(41 if __import__("platform").machine() == "x86_64" else 198, 2, 1, 0)


# --- files ----------------------------------------------------------------------------------------------------------


def do_read_secret(folder):
    open(folder + "/settings.toml").read()


def do_list_folder(folder):
    import os

    os.listdir(folder)


def do_list_home(folder):
    import os

    os.listdir(FACTS["home"])


def do_read_users(folder):
    open("/etc/passwd").read()


def do_read_secret_through_a_descriptor(folder):
    import os

    os.open("settings.toml", os.O_RDONLY, dir_fd=os.open(folder, os.O_PATH))


def do_read_environment_of_parent(folder):
    open(f"/proc/{FACTS['pid']}/environ", "rb").read()


def do_read_memory_of_parent(folder):
    open(f"/proc/{FACTS['pid']}/maps").read()


def do_write_new(folder):
    open(folder + "/new", "w").write("x")


def do_append(folder):
    open(folder + "/victim", "a").write("x")


def do_overwrite_in_place(folder):
    open(folder + "/victim", "r+").write("x")


def do_empty_by_opening(folder):
    import os

    os.open(folder + "/victim", os.O_RDONLY | os.O_TRUNC)


def do_empty_by_name(folder):
    import os

    os.truncate(folder + "/victim", 0)


def do_rename(folder):
    import os

    os.rename(folder + "/to_rename", folder + "/renamed")


def do_remove(folder):
    import os

    os.remove(folder + "/to_remove")


def do_make_folder(folder):
    import os

    os.mkdir(folder + "/made")


def do_link(folder):
    import os

    os.symlink("/etc/passwd", folder + "/link")


def do_link_hard(folder):
    import os

    os.link(folder + "/victim", folder + "/hard")


def do_change_mode(folder):
    import os

    os.chmod(folder + "/victim", 0o777)


def do_change_times(folder):
    import os

    os.utime(folder + "/victim", (1, 1))


def do_change_attributes(folder):
    import os

    os.setxattr(folder + "/victim", "user.x", b"x")


def do_make_temporary_file(folder):
    import tempfile

    tempfile.TemporaryFile()


# --- processes ------------------------------------------------------------------------------------------------------


def do_fork(folder):
    import os

    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def do_fork_by_number(folder):
    import os

    child = library_call(57) if os.uname().machine == "x86_64" else os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def do_run_program(folder):
    import subprocess

    subprocess.run(["/bin/true"], check=True)


def do_spawn(folder):
    import os

    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def do_signal_another(folder):
    import os

    os.kill(FACTS["pid"], 0)


def do_change_limits_of_another(folder):
    import resource

    resource.prlimit(FACTS["pid"], resource.RLIMIT_CORE, (0, 0))


def do_change_own_limits(folder):
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def do_reprioritise_another(folder):
    import os

    os.setpriority(os.PRIO_PROCESS, FACTS["pid"], 1)


def do_shared_memory(folder):
    library_call(29 if __import__("platform").machine() == "x86_64" else 194, 0, 4096, 0o1600)


def do_memory_file(folder):
    import os

    os.memfd_create("x")


if __name__ == "__main__":
    import json

    print(json.dumps(try_all()))
