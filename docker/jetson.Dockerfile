# The node with TensorRT on a Jetson with JetPack 6 (Ubuntu 22.04, Python 3.10): ROS 2 Humble on
# NVIDIA's base image. Not built yet: no Jetson was at hand. Build it on the board, with the tag of
# the board's JetPack: r36.4.0 is JetPack 6.1.
#
#   docker build -f docker/jetson.Dockerfile -t vditrack:jetson .
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 ROS_DISTRO=humble

# The package with ROS's apt repository and its key, as docs.ros.org describes it.
ARG ROS_APT_SOURCE=1.1.0
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && curl --fail --location --output /tmp/ros2-apt-source.deb \
        "https://github.com/ros-infrastructure/ros-apt-source/releases/download/${ROS_APT_SOURCE}/ros2-apt-source_${ROS_APT_SOURCE}.jammy_all.deb" \
    && apt-get install --yes /tmp/ros2-apt-source.deb \
    && rm -rf /tmp/ros2-apt-source.deb /var/lib/apt/lists/*

# python3-libnvinfer is TensorRT's Python module, of JetPack's own release.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        python3-colcon-common-extensions python3-libnvinfer python3-rosdep python3-venv \
        "ros-${ROS_DISTRO}-ros-base" \
    && rm -rf /var/lib/apt/lists/*

# JetPack 6 has CUDA 12, with which cuda-bindings 13 do not work.
COPY . /opt/vditrack
RUN python3 -m venv --system-site-packages /opt/environment \
    && /opt/environment/bin/pip install --no-cache-dir \
        "/opt/vditrack[cpu,tensorrt]" "cuda-bindings<13" "numpy<2"

RUN mkdir -p /opt/workspace/src \
    && ln -s /opt/vditrack/ros2_node /opt/workspace/src/vditrack_ros \
    && ln -s /opt/vditrack/ros2_msgs /opt/workspace/src/vditrack_msgs \
    && cd /opt/workspace \
    && source "/opt/ros/${ROS_DISTRO}/setup.bash" \
    && apt-get update \
    && rosdep init \
    && rosdep update --rosdistro "${ROS_DISTRO}" \
    && rosdep install --from-paths src --ignore-src --yes \
    && colcon build \
    && rm -rf build log /var/lib/apt/lists/*

ENV ROS_LOG_DIR=/tmp/ros
COPY docker/entrypoint.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
CMD ["ros2", "launch", "vditrack_ros", "tracker.launch.py"]
