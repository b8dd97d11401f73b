"""The central side: train, export, quantise, evaluate and package models."""
