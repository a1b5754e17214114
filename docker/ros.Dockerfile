# The node on a distribution's image. Not built yet: neither Docker nor the images were at hand.
#
#   docker build -f docker/ros.Dockerfile -t vditrack:jazzy .
#   docker build -f docker/ros.Dockerfile -t vditrack:lyrical \
#       --build-arg DISTRIBUTION=lyrical --build-arg NUMPY='numpy>=2' .
#   docker build -f docker/ros.Dockerfile -t vditrack:gpu \
#       --build-arg EXTRAS=gpu,tensorrt-rtx --build-arg BACKEND='onnxruntime-gpu[cuda,cudnn]' .
ARG DISTRIBUTION=jazzy
FROM ros:${DISTRIBUTION}-ros-base

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        python3-colcon-common-extensions python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Extras of vditrack: cpu or gpu, which overwrite each other.
ARG EXTRAS=cpu
# The distribution's messages are built for one major version of NumPy; Lyrical's for NumPy 2.
ARG NUMPY="numpy<2"
# With the extra gpu: CUDA and cuDNN as wheels, so that the image needs the host's driver only.
ARG BACKEND=""
COPY . /opt/vditrack
RUN python3 -m venv --system-site-packages /opt/environment \
    && /opt/environment/bin/pip install --no-cache-dir \
        "/opt/vditrack[${EXTRAS}]" "${NUMPY}" ${BACKEND:+"${BACKEND}"}

RUN mkdir -p /opt/workspace/src \
    && ln -s /opt/vditrack/ros2_node /opt/workspace/src/vditrack_ros \
    && ln -s /opt/vditrack/ros2_msgs /opt/workspace/src/vditrack_msgs \
    && cd /opt/workspace \
    && source "/opt/ros/${ROS_DISTRO}/setup.bash" \
    && apt-get update \
    && rosdep update --rosdistro "${ROS_DISTRO}" \
    && rosdep install --from-paths src --ignore-src --yes \
    && colcon build \
    && rm -rf build log /var/lib/apt/lists/*

# Any user may run the container, and each can write logs.
ENV ROS_LOG_DIR=/tmp/ros
COPY docker/entrypoint.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
CMD ["ros2", "launch", "vditrack_ros", "tracker.launch.py"]
